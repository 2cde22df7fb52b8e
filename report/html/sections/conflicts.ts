import type { ConflictSummary } from '../../../engine/insight/conflicts.ts';
import { formatShare } from '../../../engine/insight/describe-insight.ts';
import type { PairFigures } from '../../../engine/insight/pair-sums.ts';
import { counted } from '../../figures.ts';
import type { ReportFacts } from '../../report-facts.ts';
import { html, type Markup } from '../markup.ts';
import { gridFigure } from '../pictures/grid.ts';
import { COSINE_SCALE } from '../pictures/scale.ts';
import { outside, table } from '../table.ts';

/** Layer by layer only those pairs that agree least: of 32 adapters there are 496. */
const PAIRS_BY_LAYER_MAX = 6;

/** Whether several adapters pull the weights in different directions. */
export function conflictsSection({ release }: ReportFacts): Markup | undefined {
  const conflicts = release.insight?.conflicts;
  if (conflicts == null) return undefined;
  const { measured, comparable, leftOut } = conflicts;
  const left =
    leftOut === 0
      ? ''
      : ` ${counted(leftOut, 'tensor')} cannot be compared (DoRA, other kinds, replaced tensors or rows).`;
  return html`<section aria-labelledby="conflicts">
<h2 id="conflicts">How the adapters agree</h2>
<p>The cosine of what two adapters add: 1 is the same direction, 0 unrelated, −1 opposite. Unrelated adapters can still ruin each other where they add much beside the weights: see their size. ${measured} of ${counted(comparable, 'tensor')} compared.${left}</p>
${adaptersTable(conflicts)}
<div class="pair">
${matrixFigure(conflicts)}${byLayerFigure(conflicts)}</div>
</section>
`;
}

function adaptersTable({ adapters }: ConflictSummary): Markup {
  return table(
    'Adapters',
    [
      { label: 'adapter' },
      { label: 'adds to', kind: 'number' },
      { label: 'norm of what it adds', kind: 'number' },
    ],
    adapters.map(({ id, tensors, norm }) => [
      outside(id),
      counted(tensors, 'tensor'),
      `${Number(norm.toPrecision(3))}`,
    ]),
  );
}

function matrixFigure({ adapters, pairs }: ConflictSummary): Markup {
  const ids = adapters.map(({ id }) => id);
  const valueAt = (row: number, column: number): number | undefined =>
    pairs.find((pair) => isPair(pair, ids[row], ids[column]))?.cosine ?? undefined;
  return html`${gridFigure({
    id: 'cosines',
    title: 'Cosine of every two adapters',
    description: `${counted(pairs.length, 'pair')}: ${pairs.slice(0, 3).map(inWords).join('; ')}.`,
    rowKind: 'adapter',
    rows: ids,
    columns: ids,
    valueAt,
    scale: COSINE_SCALE,
  })}`;
}

function isPair(
  { adapters: [one, other] }: PairFigures,
  row: string | undefined,
  column: string | undefined,
): boolean {
  return (one === row && other === column) || (one === column && other === row);
}

function inWords({ adapters: [one, other], cosine, signConflicts }: PairFigures): string {
  if (cosine === null) return `${one} and ${other}: one of them is zero`;
  const signs = signConflicts === null ? '' : `, ${formatShare(signConflicts)} of signs opposed`;
  return `${one} and ${other}: ${COSINE_SCALE.toText(cosine)}${signs}`;
}

function byLayerFigure({ pairs, layers: planned }: ConflictSummary): Markup | undefined {
  const layers = planned.toSorted((one, other) => numberOf(one) - numberOf(other));
  const shown = pairs
    .filter(({ cosine }) => cosine !== null)
    .toSorted((one, other) => (one.cosine ?? 0) - (other.cosine ?? 0))
    .slice(0, PAIRS_BY_LAYER_MAX);
  if (shown.length === 0 || layers.length === 0) return undefined;
  const valueAt = (row: number, column: number): number | undefined => {
    const pair = shown[column]?.adapters ?? [];
    return layers[row]?.pairs.find((each) => isPair(each, pair[0], pair[1]))?.cosine ?? undefined;
  };
  const least = shown.length < pairs.length ? `, the ${shown.length} that agree least` : '';
  return gridFigure({
    id: 'cosines-by-layer',
    title: `Cosine by layer${least}`,
    description: `${counted(layers.length, 'layer')} by ${counted(shown.length, 'pair')} of adapters.`,
    rowKind: 'layer',
    rows: layers.map(({ layer }) => /\d+$/.exec(layer)?.[0] ?? layer),
    columns: shown.map(({ adapters: [one, other] }) => `${one} · ${other}`),
    valueAt,
    scale: COSINE_SCALE,
  });
}

/** Plans name layers as text: 10 before 2. What has no number (embeddings) is last. */
function numberOf({ layer }: ConflictSummary['layers'][number]): number {
  return Number(/\d+$/.exec(layer)?.[0] ?? Number.MAX_SAFE_INTEGER);
}
