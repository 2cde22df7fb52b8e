import { wilsonInterval } from '../../../evaluation/gate/wilson-interval.ts';
import type { Interval, SuiteDecision } from '../../../evaluation/gate-decision.ts';
import { counted, formatPercent, formatSmall } from '../../figures.ts';
import type {
  ReportEvaluation,
  ReportFacts,
  ReportResult,
  ReportSuite,
} from '../../report-facts.ts';
import { candidateName, formatInterval } from '../../wording.ts';
import { type Content, html, type Markup } from '../markup.ts';
import { type Form, markerLegend } from '../pictures/marker.ts';
import { whiskerFigure } from '../pictures/whiskers.ts';
import { outside, table } from '../table.ts';

/** What every candidate scores on every suite, with intervals. */
export function scoresSection({ evaluation }: ReportFacts): Markup | undefined {
  if (evaluation === undefined) return undefined;
  const figures = evaluation.suites.map((suite, index) => suiteFigure(evaluation, suite, index));
  return html`<section aria-labelledby="scores">
<h2 id="scores">Scores</h2>
<p>The share of prompts that were answered correctly. Lines are 95 % intervals: where two overlap widely, the suite cannot tell the two apart. The dashed line is the reference, the adapter on its base.</p>
<div class="pair">
${figures}</div>
${decisionsTable(evaluation)}${perplexityTable(evaluation)}</section>
`;
}

function suiteFigure(
  evaluation: ReportEvaluation,
  suite: ReportSuite,
  index: number,
): Markup | undefined {
  const results = evaluation.results.filter((result) => result.suite === suite.id);
  const scored = results.filter(({ score }) => score !== undefined);
  if (scored.length === 0) return undefined;
  const references = referencesOn(evaluation, suite.id);
  const rows = scored.map((result) => ({
    label: candidateName(result.candidate),
    form: formOf(evaluation, result.candidate, references),
    interval: intervalOf(result),
    isReference: references.has(result.candidate),
  }));
  const prompts = scored[0]?.answered ?? 0;
  return whiskerFigure(
    `scores-${index}`,
    `${suite.id}: ${counted(prompts, 'prompt')}`,
    rows,
    html`${markerLegend(LEGEND.filter(([form]) => rows.some((row) => row.form === form)))}
<p class="about">${allowed(suite)}</p>`,
    table(
      `Scores on ${suite.id}`,
      [
        { label: 'model' },
        { label: 'score', kind: 'number' },
        { label: '95 % interval', kind: 'number' },
      ],
      scored.map(scoreCells),
    ),
  );
}

/** What the recipe demands of an artefact on a suite. */
function allowed({ dropMax, scoreMin, klMax, perplexityRiseMax }: ReportSuite): string {
  const demands = [
    `a drop of at most ${Number((100 * dropMax).toPrecision(3))}\u00a0%`,
    ...(scoreMin === undefined ? [] : [`a score of at least ${formatPercent(scoreMin)}`]),
    ...(klMax === undefined ? [] : [`a KL of at most ${formatSmall(klMax)}`]),
    ...(perplexityRiseMax === undefined
      ? []
      : [`a perplexity at most ${formatPercent(perplexityRiseMax)} higher`]),
  ];
  return `The recipe asks for ${demands.join(', ')}.`;
}

const LEGEND: readonly (readonly [Form, string])[] = [
  ['ring', 'not judged'],
  ['diamond', 'reference'],
  ['dot', 'passed the gate'],
  ['cross', 'failed the gate'],
];

function scoreCells(result: ReportResult): readonly Content[] {
  const { value, low, high } = intervalOf(result);
  const range = `${formatPercent(low)} to ${formatPercent(high)}`;
  return [outside(candidateName(result.candidate)), formatPercent(value), range];
}

/** What artefacts are compared with on a suite. */
function referencesOn({ gate }: ReportEvaluation, suite: string): ReadonlySet<string> {
  const decisions = gate.artefacts.flatMap(({ suites }) => suites);
  return new Set(decisions.filter((each) => each.suite === suite).map((each) => each.reference));
}

/** As the gate has it, for those too that the gate does not judge. */
function intervalOf({ score = 0, answered }: ReportResult): Interval {
  return wilsonInterval(Math.round(score * answered), answered);
}

/** How a candidate is marked in pictures. */
export function formOf(
  { gate }: ReportEvaluation,
  candidate: string,
  references?: ReadonlySet<string>,
): Form {
  const decision = gate.artefacts.find((each) => each.candidate === candidate);
  if (decision !== undefined) return decision.passed ? 'dot' : 'cross';
  return references?.has(candidate) === true ? 'diamond' : 'ring';
}

function decisionsTable({ gate }: ReportEvaluation): Markup | undefined {
  const rows = gate.artefacts.flatMap(({ candidate, suites: decisions }) =>
    decisions.map((decision) => decisionCells(candidate, decision)),
  );
  if (rows.length === 0) return undefined;
  return html`<h3>What the gate compared</h3>
<p>A drop counts as one where its whole interval is beyond what the recipe allows. The last column is the smallest drop that the suite could have told from chance (95 % confidence, 80 % power). KL is the divergence from what the artefact was made of.</p>
${table(
  'What the gate compared',
  [
    { label: 'artefact' },
    { label: 'suite' },
    { label: 'reference' },
    { label: 'score', kind: 'number' },
    { label: 'drop', kind: 'number' },
    { label: 'KL', kind: 'number' },
    { label: 'prompts', kind: 'number' },
    { label: 'could have seen', kind: 'number' },
  ],
  rows,
)}`;
}

function decisionCells(candidate: string, decision: SuiteDecision): readonly Content[] {
  const { suite, reference, score, drop, kl, klMax, prompts, smallestDropSeen } = decision;
  return [
    outside(candidateName(candidate)),
    outside(suite),
    outside(candidateName(reference)),
    score === undefined ? '–' : formatInterval(score),
    drop === undefined ? '–' : formatInterval(drop),
    kl === undefined
      ? '–'
      : `${formatSmall(kl)}${klMax === undefined ? '' : ` (≤ ${formatSmall(klMax)})`}`,
    prompts,
    drop === undefined ? '–' : seenText(smallestDropSeen),
  ];
}

function seenText(smallestDropSeen: number | undefined): string {
  return smallestDropSeen === undefined ? 'none' : formatPercent(smallestDropSeen);
}

function perplexityTable({ results }: ReportEvaluation): Markup | undefined {
  const measured = results.filter(({ perplexity }) => perplexity !== undefined);
  if (measured.length === 0) return undefined;
  return html`<details>
<summary>Perplexity</summary>
${table(
  'Perplexity',
  [
    { label: 'model' },
    { label: 'suite' },
    { label: 'perplexity', kind: 'number' },
    { label: 'tokens', kind: 'number' },
  ],
  measured.map(({ candidate, suite, perplexity }) => [
    outside(candidateName(candidate)),
    outside(suite),
    perplexity?.value.toFixed(3),
    perplexity?.tokens,
  ]),
)}</details>
`;
}
