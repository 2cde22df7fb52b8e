import { cut, html, type Markup } from '../markup.ts';
import { outside, table } from '../table.ts';
import { figure } from './figure.ts';
import { type Scale, stepOf } from './scale.ts';

/** Figures by rows and columns: layers and modules, or adapters and adapters. */
export interface Grid {
  readonly id: string;
  readonly title: string;
  readonly description: string;
  /** What the rows are, as the head of a column: `layer`. */
  readonly rowKind: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /** @returns undefined where there is none */
  readonly valueAt: (row: number, column: number) => number | undefined;
  readonly scale: Scale;
}

const CELL_WIDTH = 40;
const CELL_HEIGHT = 17;
/** Of the labels' font, on average: letters of a monospaced font of 11 pixels. */
const CHARACTER_WIDTH = 6.7;
const ROW_LABEL_CHARACTERS_MAX = 18;
const COLUMN_LABEL_CHARACTERS_MAX = 28;

/** A heat map of which every cell says its value in digits too. */
export function gridFigure(grid: Grid): Markup {
  const { rows, columns } = grid;
  const rowLabels = rows.map((label) => cut(label, ROW_LABEL_CHARACTERS_MAX));
  const columnLabels = columns.map((label) => cut(label, COLUMN_LABEL_CHARACTERS_MAX));
  const left = widest(rowLabels) + 6;
  const top = widest(columnLabels) + 8;
  const heads = columnLabels.map((label, column) => {
    const x = left + (column + 0.5) * CELL_WIDTH + 4;
    return html`<text class="label" transform="translate(${x} ${top - 5}) rotate(-90)">${label}</text>\n`;
  });
  const lines = rowLabels.map((label, row) => {
    const y = top + row * CELL_HEIGHT;
    return html`<text class="label" x="${left - 5}" y="${y + 12.5}" text-anchor="end">${label}</text>
${columns.map((_, column) => cell(grid, row, column, left + column * CELL_WIDTH, y))}`;
  });
  return figure(
    {
      id: grid.id,
      title: grid.title,
      description: grid.description,
      width: left + columns.length * CELL_WIDTH + 1,
      height: top + rows.length * CELL_HEIGHT + 1,
      content: html`${heads}${lines}`,
      isFluid: false,
    },
    legendOf(grid),
    dataOf(grid),
  );
}

function widest(labels: readonly string[]): number {
  return Math.ceil(Math.max(1, ...labels.map((label) => [...label].length)) * CHARACTER_WIDTH);
}

function cell(
  { valueAt, scale, rows, columns }: Grid,
  row: number,
  column: number,
  x: number,
  y: number,
) {
  const value = valueAt(row, column);
  if (value === undefined) {
    return html`<text class="absent" x="${x + CELL_WIDTH / 2}" y="${y + 12}" text-anchor="middle">·</text>\n`;
  }
  const { className } = stepOf(scale, value);
  return html`<g class="${className}"><title>${rows[row]}, ${columns[column]}: ${scale.toText(value)}</title><rect x="${x + 0.5}" y="${y + 0.5}" width="${CELL_WIDTH - 1}" height="${CELL_HEIGHT - 1}"/><text x="${x + CELL_WIDTH / 2}" y="${y + 12.5}" text-anchor="middle">${scale.toCell(value)}</text></g>\n`;
}

function legendOf({ rows, columns, valueAt, scale }: Grid): Markup {
  const values = rows.flatMap((_, row) => columns.map((__, column) => valueAt(row, column)));
  const known = values.filter((value) => value !== undefined);
  const used = new Set(known.map((value) => stepOf(scale, value).className));
  const items = scale.steps
    .filter(({ className }) => used.has(className))
    .map(
      ({ className, label }) =>
        html`<li><span class="swatch ${className}" aria-hidden="true"></span>${label}</li>\n`,
    );
  const absent =
    known.length < values.length ? html`<li>· none, or not measured</li>\n` : undefined;
  return html`<ul class="legend">
${items}${absent}</ul>`;
}

function dataOf({ title, rowKind, rows, columns, valueAt, scale }: Grid): Markup {
  const rowsAreNumbers = rows.every((label) => /^\d+$/.test(label));
  return table(
    title,
    [
      { label: rowKind, kind: rowsAreNumbers ? 'number' : 'name' },
      ...columns.map((label) => ({ label, kind: 'number' as const })),
    ],
    rows.map((label, row) => [
      outside(label),
      ...columns.map((_, column) => {
        const value = valueAt(row, column);
        return value === undefined ? '–' : scale.toText(value);
      }),
    ]),
  );
}
