import type { DistributionComparison } from '../../../evaluation/results.ts';
import { formatBytes, formatPercent, formatSmall } from '../../figures.ts';
import type {
  ReportConversion,
  ReportEvaluation,
  ReportFacts,
  ReportResult,
} from '../../report-facts.ts';
import { candidateName } from '../../wording.ts';
import { type Content, html, type Markup } from '../markup.ts';
import type { Form } from '../pictures/marker.ts';
import { type ScatterPoint, scatterFigure } from '../pictures/scatter.ts';
import { outside, table } from '../table.ts';
import { formOf } from './scores.ts';

/** How far the next-token distributions of what was made are from those of what it was made of. */
export function distancesSection(facts: ReportFacts): Markup | undefined {
  const { evaluation, conversions } = facts;
  if (evaluation === undefined) return undefined;
  const compared = evaluation.results.filter(({ comparison }) => comparison !== undefined);
  if (compared.length === 0) return undefined;
  const measured = conversions
    .map((conversion) => distanceOf(conversion, compared))
    .filter((distance) => distance !== undefined);
  return html`<section aria-labelledby="distances">
<h2 id="distances">Distance from the reference</h2>
<p>KL divergence is how much a model’s distribution over the next token differs from its reference’s: 0 is the same model. Unlike a score it moves before answers do.</p>
${measured.length === 0 ? undefined : picture(evaluation, measured)}
<details>
<summary>Distributions by suite: ${compared.length}</summary>
${table('Distributions by suite', COLUMNS, compared.map(comparisonCells))}</details>
</section>
`;
}

interface Distance {
  readonly id: string;
  readonly with: string;
  readonly bits: number;
  readonly bytes: number;
  /** Over all suites, each position the same. */
  readonly kl: number;
  readonly top1Agreement: number;
}

function distanceOf(
  { manifest }: ReportConversion,
  compared: readonly ReportResult[],
): Distance | undefined {
  const { id, bitsPerWeight, files } = manifest;
  const comparisons = compared.flatMap(({ candidate, comparison }) =>
    candidate === id && comparison !== undefined ? [comparison] : [],
  );
  const positions = comparisons.reduce((sum, each) => sum + each.positions, 0);
  const [first] = comparisons;
  if (first === undefined || bitsPerWeight === undefined || positions === 0) return undefined;
  const mean = (toValue: (each: DistributionComparison) => number): number =>
    comparisons.reduce((sum, each) => sum + each.positions * toValue(each), 0) / positions;
  return {
    id,
    with: first.with,
    bits: bitsPerWeight,
    bytes: files.reduce((sum, file) => sum + file.size, 0),
    kl: mean(({ klMean }) => klMean),
    top1Agreement: mean(({ top1Agreement }) => top1Agreement),
  };
}

const LEGEND: readonly (readonly [Form, string])[] = [
  ['dot', 'passed the gate'],
  ['cross', 'failed the gate'],
  ['ring', 'not judged'],
];

function picture(evaluation: ReportEvaluation, distances: readonly Distance[]): Markup {
  const points: readonly ScatterPoint[] = distances.map(({ id, bits, kl }) => ({
    label: shortLabel(id),
    bits,
    kl,
    form: formOf(evaluation, id),
    text: `${id}: ${bits.toFixed(2)} bits per weight, KL ${formatSmall(kl)}`,
  }));
  const legend = LEGEND.filter(([form]) => points.some((point) => point.form === form));
  return scatterFigure(points, legend, distancesTable(distances));
}

/** `gguf-q4_k_m` is Q4_K_M wherever people speak of it. */
function shortLabel(id: string): string {
  return /^gguf-(.+)$/.exec(id)?.[1]?.toUpperCase() ?? id;
}

function distancesTable(distances: readonly Distance[]): Markup {
  return table(
    'What quantizing changes, by size',
    [
      { label: 'conversion' },
      { label: 'bits per weight', kind: 'number' },
      { label: 'size', kind: 'number' },
      { label: 'mean KL, nats per token', kind: 'number' },
      { label: 'same first choice', kind: 'number' },
      { label: 'beside' },
    ],
    distances
      .toSorted((one, other) => other.bits - one.bits)
      .map((each) => [
        outside(each.id),
        each.bits.toFixed(2),
        formatBytes(each.bytes),
        formatSmall(each.kl),
        formatPercent(each.top1Agreement),
        outside(candidateName(each.with)),
      ]),
  );
}

const COLUMNS = [
  { label: 'model' },
  { label: 'suite' },
  { label: 'beside' },
  { label: 'mean KL', kind: 'number' },
  { label: 'largest KL', kind: 'number' },
  { label: 'largest difference', kind: 'number' },
  { label: 'same first choice', kind: 'number' },
  { label: 'positions', kind: 'number' },
  { label: 'tokenized differently', kind: 'number' },
] as const;

function comparisonCells({ candidate, suite, comparison }: ReportResult): readonly Content[] {
  if (comparison === undefined) return [];
  const unit = comparison.ofLogProbabilities ? 'log-probability' : 'logit';
  return [
    outside(candidateName(candidate)),
    outside(suite),
    outside(candidateName(comparison.with)),
    formatSmall(comparison.klMean),
    formatSmall(comparison.klMax),
    `${formatSmall(comparison.logitDifferenceMax)} (${unit})`,
    formatPercent(comparison.top1Agreement),
    comparison.positions,
    comparison.tokenizedDifferently.length,
  ];
}
