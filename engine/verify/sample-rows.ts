import type { FileHandle } from 'node:fs/promises';
import { assert, WeldlineError } from '../errors.ts';
import { bandSteps } from '../merge/band-steps.ts';
import { bandDeltas, workOf } from '../merge/tensor-work.ts';
import type { PlannedDelta, PlannedTensor } from '../plan/plan.ts';
import { bytesOf, type MergeDtype } from '../safetensors/dtype.ts';
import { columnNorms } from './column-norms.ts';
import { dequantizedRow } from './dequantized-row.ts';
import { decode, leftRow, type ReadTensor, readRows, rightRows } from './factor-rows.ts';
import { rowInSteps } from './step-rows.ts';

export type { ReadTensor };

const { fround } = Math;

/** Half of the relative distance between neighbouring values, and the smallest such distance. */
const PRECISION: Readonly<Record<MergeDtype, { halfUlp: number; smallest: number }>> = {
  BF16: { halfUlp: 2 ** -8, smallest: 2 ** -133 },
  F16: { halfUlp: 2 ** -11, smallest: 2 ** -24 },
  F32: { halfUlp: 2 ** -24, smallest: 2 ** -149 },
};

/** Rounding of one f32 operation, relative to its result. */
const F32_UNIT = 2 ** -24;

/** The same of float64. */
const F64_UNIT = 2 ** -53;

/**
 * Works out rows of a merged tensor again, in float64 and by another road than the merge (no
 * kernel, no bands), and compares them with what was written. A 16-bit value must be the exact one
 * rounded once (from a quantised base, of what that dequantises to); what is allowed beyond that is
 * the bound on fp32 accumulation of `rank` products. An F32 value is defined as the float64 one
 * rounded, and must be that; with DoRA it is within the bound on the three roundings that its steps
 * have.
 *
 * @param rows rows of the tensor as stored
 * @param output the file that holds `tensor`
 * @returns the largest distance from the exact value, in units of the dtype's rounding
 * @throws WeldlineError `verify.recomputation-mismatch`
 */
export async function verifyRows(
  tensor: PlannedTensor,
  rows: readonly number[],
  read: ReadTensor,
  output: FileHandle,
): Promise<number> {
  const columns = tensor.shape.at(-1) ?? 1;
  const { summed, dense } = bandDeltas(tensor);
  const deltas = [...summed, ...dense];
  const expected: ExpectedRow[] = [];
  for (const row of rows) {
    const base = await sourceRow(tensor, row, columns, read);
    const terms: ExpectedTerm[] = [];
    for (const delta of deltas) {
      const left = await leftRow(delta, row, read);
      terms.push({ delta, left, product: base.map(() => 0), magnitude: base.map(() => 0) });
    }
    expected.push({ row, base, terms });
  }
  for (const [index, delta] of deltas.entries()) {
    const terms = expected.map((row) => row.terms[index]!);
    await addProducts(delta, columns, terms, read);
  }
  const isInSteps = bandSteps(tensor) !== undefined;
  const norms = isInSteps ? await columnNorms(tensor, read) : new Map();
  let worst = 0;
  for (const row of expected) {
    const exact = isInSteps
      ? await rowInSteps(tensor, row, norms, read)
      : await exactRow(row, read);
    worst = Math.max(worst, await compareRow(tensor, row.row, exact, output));
  }
  return worst;
}

/** What a row begins with: an adapter's, where it replaces that row; a quantised one as floats. */
async function sourceRow(
  { from, tokens }: PlannedTensor,
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const place = tokens?.indices.indexOf(row) ?? -1;
  if (tokens !== undefined && place >= 0) return readRows(tokens.from, place, 1, columns, read);
  const { quantization } = from;
  if (quantization === undefined) return readRows(from, row, 1, columns, read);
  return dequantizedRow({ ...from, quantization }, row, columns, read);
}

export interface ExpectedRow {
  readonly row: number;
  readonly base: Float64Array;
  /** One for each delta, in the order in which they are added. */
  readonly terms: readonly ExpectedTerm[];
}

export interface ExpectedTerm {
  readonly delta: PlannedDelta;
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

async function compareRow(
  tensor: PlannedTensor,
  row: number,
  { exact, bound }: ExactRow,
  output: FileHandle,
): Promise<number> {
  const dtype = tensor.dtype as MergeDtype;
  const written = await writtenRow(tensor, row, exact.length, output);
  const { halfUlp, smallest } = PRECISION[dtype];
  let worst = 0;
  for (let column = 0; column < exact.length; column++) {
    const value = exact[column]!;
    const unit = Math.max(Math.abs(value) * halfUlp, smallest / 2);
    const distance = Math.abs(written[column]! - value);
    // Comparisons with NaN are false, so they say what is right.
    const isRight =
      dtype === 'F32' && workOf(tensor) !== 'band'
        ? written[column] === fround(value)
        : distance <= unit * (1 + 2 ** -7) + bound[column]!;
    if (!isRight) {
      throw new WeldlineError(
        'verify.recomputation-mismatch',
        `"${tensor.name}" row ${row}, column ${column}: the file holds ${written[column]}, but the ` +
          `inputs give ${value}. The merge is wrong; delete the output and report this.`,
      );
    }
    worst = Math.max(worst, distance / unit);
  }
  return worst;
}

async function writtenRow(
  tensor: PlannedTensor,
  row: number,
  columns: number,
  output: FileHandle,
): Promise<Float64Array> {
  const dtype = tensor.dtype as MergeDtype;
  const bytes = Buffer.alloc(columns * bytesOf(dtype));
  await output.read(bytes, 0, bytes.length, tensor.offset + row * bytes.length);
  return decode(bytes, dtype);
}

/** A row in float64, and how far from it float32 arithmetic may come before the last rounding. */
export interface ExactRow {
  readonly exact: Float64Array;
  readonly bound: Float64Array;
}

async function exactRow({ row, base, terms }: ExpectedRow, read: ReadTensor): Promise<ExactRow> {
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
): Promise<ExactRow> {
  assert(delta.magnitude !== undefined, `${delta.module} has no magnitude`);
  const length = (await readRows(delta.magnitude, row, 1, 1, read))[0]!;
  const factor = length / Math.sqrt(exact.reduce((sum, value) => sum + value * value, 0));
  const scaled = exact.map((value) => factor * value);
  const bound = scaled.map((value, column) => {
    // The sum, its norm and their product are each rounded once; terms that cancel, in float64.
    const terms = Math.abs(factor * delta.scaling) * magnitude[column]! * (delta.rank + 3);
    return F32_UNIT * 3 * Math.abs(value) + F64_UNIT * terms + 2 ** -149;
  });
  return { exact: scaled, bound };
}
