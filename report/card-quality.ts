import type { ArtefactDecision, SuiteDecision } from '../evaluation/gate-decision.ts';
import { formatBytes, formatSmall } from './figures.ts';
import { inline } from './markdown.ts';
import type { ReportConversion, ReportFacts } from './report-facts.ts';
import { candidateName, formatInterval, signalWords } from './wording.ts';

/** What the model card says of evaluation and conversions; the report says more. */
export function qualitySections({
  evaluation,
  conversions,
  approval,
}: Pick<ReportFacts, 'evaluation' | 'conversions' | 'approval'>): string {
  const artefacts = evaluation?.gate.artefacts ?? [];
  const wanted = conversions.filter(({ isWanted }) => isWanted);
  return `${artefacts.length === 0 ? '' : evaluated(artefacts, approval)}${
    wanted.length === 0 ? '' : converted(wanted)
  }`;
}

function evaluated(
  artefacts: readonly ArtefactDecision[],
  approval: ReportFacts['approval'],
): string {
  const rows = artefacts.flatMap(({ candidate, suites }) =>
    suites.map((suite) => `| ${inline(candidateName(candidate))} | ${suiteCells(suite)} |`),
  );
  const decisions = artefacts.map(
    (artefact) => `- ${inline(candidateName(artefact.candidate))}: ${decisionOf(artefact)}`,
  );
  return `
## Evaluation

| model | suite | score (95 %) | reference | score (95 %) | KL |
|---|---|---|---|---|---|
${rows.join('\n')}

${decisions.join('\n')}
${approval === undefined ? '' : `- ${inline(describeApproval(approval))}\n`}`;
}

function suiteCells({ suite, reference, score, referenceScore, kl }: SuiteDecision): string {
  return [
    inline(suite),
    score === undefined ? '–' : formatInterval(score),
    inline(candidateName(reference)),
    referenceScore === undefined ? '–' : formatInterval(referenceScore),
    kl === undefined ? '–' : formatSmall(kl),
  ].join(' | ');
}

function decisionOf({ passed, failures }: ArtefactDecision): string {
  if (passed) return 'passed the gate';
  const reasons = failures.map((failure) => `${signalWords(failure)} (${failure.signal})`);
  return `**failed the gate**: ${inline([...new Set(reasons)].join(', '))}`;
}

/** Who released it, and why although the gate had refused it. Not yet safe in Markdown. */
export function describeApproval({ by, override }: NonNullable<ReportFacts['approval']>): string {
  return `approved by ${by}${override === undefined ? '' : `, over the gate: ${override}`}`;
}

function converted(conversions: readonly ReportConversion[]): string {
  const rows = conversions.map(({ manifest: { id, bitsPerWeight, files, tools } }) => {
    const size = formatBytes(files.reduce((sum, file) => sum + file.size, 0));
    const made = Object.entries(tools).map(([name, version]) => `${name} ${version}`);
    const bits = bitsPerWeight?.toFixed(2) ?? '–';
    return `| ${inline(id)} | ${size} | ${bits} | ${inline(made.join(', '))} |`;
  });
  return `
## Conversions

| conversion | size | bits per weight | made by |
|---|---|---|---|
${rows.join('\n')}
`;
}
