import type { ConversionManifest } from '../conversion/conversion-step.ts';
import { describeArtefact, describeSuite } from '../evaluation/gate/describe-decision.ts';
import { candidateMetrics } from './candidate-metrics.ts';
import { describeApproval } from './card-quality.ts';
import { conversionFrontMatter } from './front-matter.ts';
import { inline, inputCell } from './markdown.ts';
import type { ReleaseFacts } from './release-facts.ts';
import type { ReportResult } from './report-facts.ts';

export interface ConversionCardOptions {
  /** `org/name` of the hub where the merged checkpoint is published, if it is. */
  readonly mergedRepo?: string | undefined;
  /** Of all candidates; they say what ran them, which the gate does not. */
  readonly results?: readonly ReportResult[];
}

/** The card of a conversion: what a person who finds the directory wants to know. */
export function conversionCard(
  facts: ReleaseFacts,
  artefact: string,
  conversion: ConversionManifest,
  { mergedRepo, results }: ConversionCardOptions = {},
): string {
  const [base, ...adapters] = facts.inputs;
  const { bitsPerWeight } = conversion;
  const metrics = candidateMetrics(conversion.id, facts.gate, results);
  return `${conversionFrontMatter(facts, conversion, { artefact, mergedRepo, metrics })}
# ${facts.name} ${facts.version}, ${conversion.id}

${use(conversion)}

| | |
|---|---|
| artefact | \`${artefact}\` |
${madeOf(facts, conversion)}| base | ${inputCell(base)} |
${adapters.map((adapter) => `| adapter \`${adapter.id}\` | ${inputCell(adapter)} |`).join('\n')}
${bitsPerWeight === undefined ? '' : `| bits per weight | ${bitsPerWeight.toFixed(2)} |\n`}${Object.entries(
  conversion.settings,
)
  .map(([name, value]) => `| ${inline(name)} | ${inline(String(value))} |`)
  .join('\n')}
${Object.entries(conversion.tools)
  .map(([name, version]) => `| ${inline(name)} | ${inline(version)} |`)
  .join('\n')}
| run | \`${facts.run.workflowId}\`, ${facts.run.startedAt} |

${evaluated(facts, conversion)}## Checked

${list(conversion.checks)}
${conversion.warnings.length === 0 ? '' : `\n## Warnings\n\n${list(conversion.warnings)}\n`}
## Files

| file | bytes | SHA-256 |
|---|---|---|
${conversion.files.map((file) => `| ${file.path} | ${file.size} | \`${file.sha256}\` |`).join('\n')}
`;
}

function use({ kind, files }: ConversionManifest): string {
  const [first] = files.map(({ path }) => path).filter((path) => path.endsWith('.gguf'));
  if (kind === 'gguf')
    return `For llama.cpp and what is built on it: \`llama-server -m ${first}\`.`;
  if (kind === 'gguf-adapter') {
    return `A LoRA adapter for llama.cpp, on the base as GGUF: \`llama-server -m BASE --lora ${first}\`.`;
  }
  return 'Integer weights in the compressed-tensors format, for vLLM: `vllm serve DIRECTORY`.';
}

/** Of an adapter the table says which it is. */
function madeOf({ artefact, manifestDigest }: ReleaseFacts, { kind }: ConversionManifest): string {
  return kind === 'gguf-adapter'
    ? ''
    : `| made of | \`${artefact}\`, manifest \`${manifestDigest}\` |\n`;
}

/** What the gate found of it, and who released it all the same. */
function evaluated({ gate, approval }: ReleaseFacts, { id }: ConversionManifest): string {
  const decision = gate?.artefacts.find(({ candidate }) => candidate === id);
  const approved = approval === undefined ? [] : [describeApproval(approval)];
  if (decision === undefined) return approved.length === 0 ? '' : section(approved);
  return section([
    ...describeArtefact(decision).map((line) => line.trim()),
    ...decision.suites.map(describeSuite),
    ...approved,
  ]);
}

function section(lines: readonly string[]): string {
  return `## Evaluated\n\n${list(lines)}\n\n`;
}

function list(lines: readonly string[]): string {
  return lines.map((line) => `- ${inline(line)}`).join('\n');
}
