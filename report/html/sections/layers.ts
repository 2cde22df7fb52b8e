import { describeRetention, describeSize } from '../../../engine/insight/describe-insight.ts';
import type { TensorRetention } from '../../../engine/insight/retention.ts';
import { type LayerGrid, layerGrids, shortNames } from '../../layer-grid.ts';
import type { ReportFacts } from '../../report-facts.ts';
import { html, type Markup } from '../markup.ts';
import { gridFigure } from '../pictures/grid.ts';
import { ERROR_SCALE, RETENTION_SCALE, type Scale, SIZE_SCALE } from '../pictures/scale.ts';
import { code, outside, table } from '../table.ts';

/** How large what is added is in each layer, and how much of it survives rounding. */
export function layersSection({ release, tensors }: ReportFacts): Markup | undefined {
  const retention = release.insight?.retention;
  if (retention == null) return undefined;
  const { grids, others } = layerGrids(tensors);
  const size = describeSize(retention);
  return html`<section aria-labelledby="layers">
<h2 id="layers">Where the adapters act</h2>
<p>In all, ${outside(describeRetention(retention))}${size && html`; ${size}`}.</p>
${grids.length === 0 ? undefined : EXPLANATION}
<div class="pair">
${grids.flatMap((grid, index) => [sizeFigure(grid, index), retentionFigure(grid, index)])}</div>
${othersTable(others)}</section>
`;
}

const EXPLANATION = html`<p>Each cell is one module of one layer. <b>Size</b> is how large what was added is beside the weights it was added to; <b>retention</b> is how much of it is still there after rounding to the output’s dtype. Both in percent.</p>`;

function sizeFigure(grid: LayerGrid<TensorRetention>, index: number): Markup {
  const name = `Size of what was added, ${grid.stack || 'by layer'}`;
  return layerFigure(`size-${index}`, name, grid, SIZE_SCALE, (values) =>
    Math.max(...values.map(({ relativeSize }) => relativeSize)),
  );
}

/** Of several tensors in one cell (experts) the one that keeps least. */
function retentionFigure(grid: LayerGrid<TensorRetention>, index: number): Markup {
  const name = `Retention, ${grid.stack || 'by layer'}`;
  return layerFigure(`retention-${index}`, name, grid, RETENTION_SCALE, (values) =>
    Math.min(...values.map(({ retention }) => retention)),
  );
}

function layerFigure<Value>(
  id: string,
  title: string,
  { layers, modules, valuesAt }: LayerGrid<Value>,
  scale: Scale,
  toValue: (values: readonly Value[]) => number,
): Markup {
  const valueAt = (row: number, column: number): number | undefined => {
    const values = valuesAt(layers[row] ?? -1, modules[column] ?? '');
    return values.length === 0 ? undefined : toValue(values);
  };
  const all = layers
    .flatMap((_, row) => modules.map((__, column) => valueAt(row, column)))
    .filter((value) => value !== undefined);
  const [least, most] = [Math.min(...all), Math.max(...all)];
  return gridFigure({
    id,
    title,
    description: `${layers.length} layers by ${modules.length} modules, from ${scale.toText(least)} to ${scale.toText(most)}.`,
    rowKind: 'layer',
    rows: layers.map(String),
    columns: shortNames(modules),
    valueAt,
    scale,
  });
}

function othersTable(others: readonly TensorRetention[]): Markup | undefined {
  if (others.length === 0) return undefined;
  return html`<h3>Outside the layers</h3>
${table(
  'Tensors outside the layers',
  [{ label: 'tensor' }, { label: 'size', kind: 'number' }, { label: 'retention', kind: 'number' }],
  others.map(({ name, relativeSize, retention }) => [
    code(name),
    SIZE_SCALE.toText(relativeSize),
    RETENTION_SCALE.toText(retention),
  ]),
)}`;
}

/** How far the weights of integer conversions are from those they stand for. */
export function layerErrorsSection({ conversions }: ReportFacts): Markup | undefined {
  const measured = conversions.flatMap(({ manifest: { id, layerErrors = {} } }) => {
    const modules = Object.entries(layerErrors).map(([name, error]) => ({ name, error }));
    return modules.length === 0 ? [] : [{ id, ...layerGrids(modules) }];
  });
  if (measured.length === 0) return undefined;
  const figures = measured.flatMap(({ id, grids }, conversion) =>
    grids.map((grid, index) =>
      layerFigure(
        `error-${conversion}-${index}`,
        `Error of ${id}, ${grid.stack || 'by layer'}`,
        grid,
        ERROR_SCALE,
        (values) => Math.max(...values.map(({ error }) => error)),
      ),
    ),
  );
  return html`<section aria-labelledby="errors">
<h2 id="errors">Error of quantized weights</h2>
<p>How far the dequantized weights are from those of the merged model, beside their norm, in percent.</p>
<div class="pair">
${figures}</div>
</section>
`;
}
