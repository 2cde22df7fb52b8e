import { assert } from '../errors.ts';
import { bandSteps } from '../merge/bands/band-steps.ts';
import type { Cut } from '../merge/bands/find-cut.ts';
import { bandDeltas } from '../merge/tensor-work.ts';
import type { PlannedDelta, PlannedTensor } from '../plan/plan.ts';
import { columnNorms } from './column-norms.ts';
import { recomputeCombined } from './combined-rows.ts';
import { dequantizedRow } from './dequantized-row.ts';
import { leftRow, type ReadTensor, readRows, rightRows } from './factor-rows.ts';
import { rowInSteps } from './step-rows.ts';
import { thinnedRow } from './thinned-row.ts';

export type { ReadTensor };

/** Rounding of one f32 operation, relative to its result. */
const F32_UNIT = 2 ** -24;

/** The same of float64. */
const F64_UNIT = 2 ** -53;

/** A row of a planned tensor, worked out in float64. */
export interface ExactRow {
  readonly row: number;
  /** What it would be without any delta: as read, or what a quantised weight dequantises to. */
  readonly source: Float64Array;
  /** What the merge must give before its rounding to the dtype of the output. */
  readonly exact: Float64Array;
  /** How far from that float32 arithmetic may come before the last rounding. */
  readonly bound: Float64Array;
  /** Whether it is a sum and nothing else, of which a float32 is the nearest there is. */
  readonly isSum: boolean;
}

/**
 * Works out rows of a planned tensor in float64 and by another road than the merge (no kernel, no
 * bands): what verification compares with, and what retention is measured against.
 *
 * @param rows rows of the tensor as stored; a vector has one
 * @param cuts of each delta, where a combination keeps the largest
 */
export async function exactRows(
  tensor: PlannedTensor,
  rows: readonly number[],
  read: ReadTensor,
  cuts: readonly Cut[] = [],
): Promise<readonly ExactRow[]> {
  const columns = tensor.shape.at(-1) ?? 1;
  const combined = await recomputeCombined(tensor, read);
  const { summed, dense } = bandDeltas(tensor);
  const deltas = combined === undefined ? [...summed, ...dense] : [];
  const expected: ExpectedRow[] = [];
  for (const row of rows) {
    const base = await sourceRow(tensor, row, columns, read);
    const terms: ExpectedTerm[] = combined === undefined ? [] : [combined(row)];
    for (const delta of deltas) {
      const { begin, count } = delta.rows ?? { begin: 0, count: Infinity };
      if (row < begin || row >= begin + count) continue;
      const left = await leftRow(delta, row - begin, read);
      terms.push({ delta, left, product: base.map(() => 0), magnitude: base.map(() => 0) });
    }
    expected.push({ row, base, terms });
  }
  for (const delta of deltas) {
    const terms = expected.flatMap((row) => row.terms.filter((term) => term.delta === delta));
    if (terms.length > 0) await addProducts(delta, columns, terms, read);
  }
  const isInSteps = tensor.combination === undefined && bandSteps(tensor) !== undefined;
  const norms = isInSteps ? await columnNorms(tensor, read) : new Map();
  const exact: ExactRow[] = [];
  for (const row of expected) {
    const isSum =
      combined === undefined &&
      tensor.combination === undefined &&
      !isInSteps &&
      row.terms.every(({ delta }) => delta.magnitude === undefined);
    const worked = isInSteps
      ? await rowInSteps(tensor, row, norms, read)
      : await workedRow(tensor, row, read, cuts);
    exact.push({ row: row.row, source: row.base, isSum, ...worked });
  }
  return exact;
}

/** What a row begins with: an adapter's, where it replaces that row; a quantised one as floats. */
async function sourceRow(
  { from, tokens = [] }: PlannedTensor,
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const trained = tokens.find(({ indices }) => indices.includes(row));
  if (trained !== undefined) {
    return readRows(trained.from, trained.indices.indexOf(row), 1, columns, read);
  }
  const { quantization } = from;
  if (quantization === undefined) return readRows(from, row, 1, columns, read);
  return dequantizedRow({ ...from, quantization }, row, columns, read);
}

export interface ExpectedRow {
  readonly row: number;
  readonly base: Float64Array;
  /** One for each delta that is added to this row, in the order in which they are. */
  readonly terms: readonly ExpectedTerm[];
}

export interface ExpectedTerm {
  readonly delta: Pick<
    PlannedDelta,
    'adapter' | 'rank' | 'scaling' | 'module' | 'magnitude' | 'rows'
  >;
  /** Row of L, [rank]. */
  readonly left: Float64Array;
  /** The row of L R so far, and the sum of its terms' magnitudes. */
  readonly product: Float64Array;
  readonly magnitude: Float64Array;
}

async function addProducts(
  delta: PlannedDelta,
  columns: number,
  terms: readonly ExpectedTerm[],
  read: ReadTensor,
): Promise<void> {
  for await (const { k, right } of rightRows(delta, columns, read)) {
    for (const { left, product, magnitude } of terms) {
      const factor = left[k]!;
      for (let column = 0; column < columns; column++) {
        const term = factor * right[column]!;
        product[column]! += term;
        magnitude[column]! += Math.abs(term);
      }
    }
  }
}

/** A row in float64, and how far from it the merge's arithmetic may come before the last rounding. */
export interface WorkedRow {
  readonly exact: Float64Array;
  readonly bound: Float64Array;
}

async function workedRow(
  tensor: PlannedTensor,
  { row, base, terms }: ExpectedRow,
  read: ReadTensor,
  cuts: readonly Cut[],
): Promise<WorkedRow> {
  const { combination } = tensor;
  if (combination !== undefined) {
    const rows = terms.map(({ delta, product }) => ({
      adapter: delta.adapter,
      values: product.map((value) => delta.scaling * value),
    }));
    return thinnedRow({ ...tensor, combination }, row, base, rows, cuts);
  }
  const exact = Float64Array.from(base);
  const bound = base.map(() => 0);
  for (const { delta, product, magnitude } of terms) {
    for (let column = 0; column < exact.length; column++) {
      exact[column]! += delta.scaling * product[column]!;
      // rank products, as many sums, the scaling and the last sum, each rounded once.
      const products = Math.abs(delta.scaling) * magnitude[column]! * (delta.rank + 3);
      bound[column]! += F32_UNIT * (products + Math.abs(exact[column]!)) + 2 ** -149;
    }
  }
  const dora = terms.find(({ delta }) => delta.magnitude !== undefined);
  return dora === undefined ? { exact, bound } : scaledRow(row, exact, dora, read);
}

/** The same with DoRA, which is then all that changes the row. */
async function scaledRow(
  row: number,
  exact: Float64Array,
  { delta, magnitude }: ExpectedTerm,
  read: ReadTensor,
): Promise<WorkedRow> {
  assert(delta.magnitude !== undefined, `${delta.module} has no magnitude`);
  const place = row - (delta.rows?.begin ?? 0);
  const length = (await readRows(delta.magnitude, place, 1, 1, read))[0]!;
  const factor = length / Math.sqrt(exact.reduce((sum, value) => sum + value * value, 0));
  const scaled = exact.map((value) => factor * value);
  const bound = scaled.map((value, column) => {
    // The sum, its norm and their product are each rounded once; terms that cancel, in float64.
    const terms = Math.abs(factor * delta.scaling) * magnitude[column]! * (delta.rank + 3);
    return F32_UNIT * 3 * Math.abs(value) + F64_UNIT * terms + 2 ** -149;
  });
  return { exact: scaled, bound };
}
