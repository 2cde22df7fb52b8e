import {
  describeConflicts,
  describeRetention,
  describeSize,
} from '../engine/insight/describe-insight.ts';
import type { RetentionSummary } from '../engine/insight/retention.ts';
import { candidateMetrics } from './candidate-metrics.ts';
import { qualitySections } from './card-quality.ts';
import { mergedFrontMatter } from './front-matter.ts';
import { inline, inputCell } from './markdown.ts';
import type { ReleaseFacts } from './release-facts.ts';
import type { ReportFacts } from './report-facts.ts';

/**
 * The model card of a release: what a person who finds the directory wants to know.
 *
 * @param quality what was evaluated and converted, where anything was
 */
export function modelCard(
  facts: ReleaseFacts,
  quality?: Pick<ReportFacts, 'evaluation' | 'conversions' | 'approval'>,
): string {
  const [base, ...adapters] = facts.inputs;
  const metrics = candidateMetrics('merged', facts.gate, quality?.evaluation?.results);
  return `${mergedFrontMatter(facts, metrics)}
# ${facts.name} ${facts.version}

${adapters.length > 1 ? `${adapters.length} LoRA adapters` : 'LoRA adapter'} merged into ${adapters.length > 1 ? 'their' : 'its'} base model; loads wherever the base loads.

| | |
|---|---|
| artefact | \`${facts.artefact}\` |
| base | ${inputCell(base)} |
${adapters.map((adapter) => `| adapter \`${adapter.id}\` | ${inputCell(adapter)} |`).join('\n')}
| tensors | ${facts.tensors.total}, of which ${facts.tensors.merged} merged and ${facts.tensors.replaced} replaced |
| dtype | ${facts.options['dtype'] ?? 'as in the base, per tensor'} |
${mergedOnto(facts)}${nf4Distance(facts)}${combined(facts)}| engine | weldline ${facts.engine.version}, format ${facts.engine.format} |
| plan | \`${facts.plan}\` |
| run | \`${facts.run.workflowId}\`, ${facts.run.startedAt} |

## Verified

- ${facts.verification.filesChecked} files read back and equal to their digests
- ${facts.verification.rowsRecomputed} rows of merged tensors worked out again in float64; the
  farthest value is ${facts.verification.worstRounding} roundings from the exact one
- every merged value is finite
${measured(facts)}${quality === undefined ? '' : qualitySections(quality)}
## Files

| file | bytes | SHA-256 |
|---|---|---|
${facts.files.map((file) => `| ${file.path} | ${file.size} | \`${file.sha256}\` |`).join('\n')}
${warnings(facts)}`;
}

/** Which weights an adapter was merged onto changes what the model does; see the recipe. */
function mergedOnto({ options }: ReleaseFacts): string {
  const onto = options['merge_onto'];
  return onto === undefined ? '' : `| merged onto | the ${onto} weights of the base |\n`;
}

/** How much the choice of what is merged onto matters. */
function nf4Distance({ nf4Distance: distance }: ReleaseFacts): string {
  if (distance === undefined) return '';
  const { relative, tensors, values } = distance;
  const sampled = `${values} values of ${tensors} weights`;
  const percent = (100 * relative).toFixed(2);
  return `| base beside its NF4 | ${percent} % of its norm apart, measured on ${sampled} |\n`;
}

/** Weights stand in the order of the adapters above. */
function combined({ options }: ReleaseFacts): string {
  const { combination, weights, densities, seed, majority_sign: sign } = options;
  if (combination === undefined) return '';
  const parameters = [
    `weights ${weights}`,
    ...(densities === undefined ? [] : [`densities ${densities}`]),
    ...(sign === undefined ? [] : [`sign by ${sign}`]),
    ...(seed === undefined ? [] : [`seed ${seed}`]),
  ];
  return `| combined | ${combination}, ${parameters.join(', ')} |\n`;
}

/** How much of the adapters is in the weights, and how they agree with each other. */
function measured({ insight }: ReleaseFacts): string {
  const { retention, conflicts } = insight ?? {};
  const size = retention && describeSize(retention);
  const lines = [
    ...(retention ? [survival(retention)] : []),
    ...(size ? [size] : []),
    ...(conflicts ? describeConflicts(conflicts) : []),
  ];
  if (lines.length === 0) return '';
  return `\n## Measured\n\n${lines.map((line) => `- ${inline(line)}`).join('\n')}\n`;
}

/** A list of what was measured says of what was not what it is. */
function survival(retention: RetentionSummary): string {
  const isLeftOut = retention.measured === 0 && retention.merged > 0;
  const subject = isLeftOut ? 'how much of the delta survives rounding was ' : '';
  return `${subject}${describeRetention(retention)}`;
}

function warnings(facts: ReleaseFacts): string {
  if (facts.warnings.length === 0) return '';
  return `\n## Warnings\n\n${facts.warnings.map((warning) => `- ${inline(warning)}`).join('\n')}\n`;
}
