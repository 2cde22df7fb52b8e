import type { PlannedChange } from '../plan/plan.ts';
import { type ReadTensor, readRows } from './factor-rows.ts';
import type { WorkedRow } from './sample-rows.ts';

type RotationChange = Extract<PlannedChange, { kind: 'rotation' }>;

const F64_UNIT = 2 ** -53;

/**
 * A row after OFT, without the rotation itself: `y = x Rᵀ` with `Rᵀ = (I − Q)⁻¹ (I + Q)` solves
 * `z (I − Q) = x` and multiplies `y = z (I + Q)`; the series is taken of vectors. For outputs Q is −Q.
 *
 * @param bound how far the merge's x may be from x
 */
export async function rotateRow(
  { blocks, size, ofOutputs, neumannTerms, radius }: RotationChange,
  x: Float64Array,
  bound: Float64Array,
  read: ReadTensor,
): Promise<WorkedRow> {
  const exact = new Float64Array(x.length);
  const rotated = new Float64Array(x.length);
  const numbers = blocks.shape[1] ?? 0;
  for (let begin = 0, index = 0; begin < x.length; begin += size, index++) {
    const at = blocks.shape[0] === 1 ? 0 : index;
    const triangle = await readRows(blocks, at, 1, numbers, read);
    const skew = skewOf(triangle, size, radius, ofOutputs ? -1 : 1);
    const part = x.slice(begin, begin + size);
    const norm = Math.hypot(...skew.flat());
    exact.set(
      neumannTerms === undefined ? cayley(skew, part) : series(skew, part, neumannTerms),
      begin,
    );
    const growth = neumannTerms === undefined ? 1 : growthOf(norm, neumannTerms);
    const largest = (values: Float64Array): number => Math.max(...values.map(Math.abs));
    const off = largest(bound.slice(begin, begin + size));
    // No element of a rotation is larger than 1; the solution is as well-behaved as I − Q.
    const rounding = 16 * F64_UNIT * size * (1 + norm) * largest(part);
    rotated.fill(size * growth * (off + rounding), begin, begin + size);
  }
  return { exact, bound: rotated };
}

function skewOf(
  triangle: Float64Array,
  size: number,
  radius: number | undefined,
  sign: number,
): number[][] {
  // What is above the diagonal of row i begins after the rows before it.
  const upper = (i: number, j: number): number =>
    triangle[i * size - (i * (i + 1)) / 2 + (j - i - 1)] ?? Number.NaN;
  const norm = Math.SQRT2 * Math.hypot(...triangle);
  const factor = sign * (radius === undefined ? 1 : Math.min(1, radius / norm));
  return Array.from({ length: size }, (_, i) =>
    Array.from({ length: size }, (__, j) => {
      if (i === j) return 0;
      return factor * (i < j ? upper(i, j) : -upper(j, i));
    }),
  );
}

/** Row vector times matrix. */
function times(vector: Float64Array, matrix: readonly (readonly number[])[]): Float64Array {
  return vector.map((_, j) => vector.reduce((sum, value, i) => sum + value * matrix[i]![j]!, 0));
}

/** `x (I − Q)⁻¹ (I + Q)`; `z (I − Q) = x` is `(I + Q) zᵀ = xᵀ`, for Qᵀ is −Q. */
function cayley(skew: readonly (readonly number[])[], x: Float64Array): Float64Array {
  const rows = skew.map((row, i) => [...row.map((q, j) => q + (i === j ? 1 : 0)), x[i]!]);
  const z = Float64Array.from(solve(rows));
  const turned = times(z, skew);
  return z.map((value, i) => value + turned[i]!);
}

/** The solution of linear equations: rows of coefficients, each with its right side at its end. */
function solve(rows: number[][]): number[] {
  const size = rows.length;
  for (let column = 0; column < size; column++) {
    const below = rows.slice(column).map((row) => Math.abs(row[column]!));
    const pivot = column + below.indexOf(Math.max(...below));
    [rows[column], rows[pivot]] = [rows[pivot]!, rows[column]!];
    for (let row = column + 1; row < size; row++) {
      const factor = rows[row]![column]! / rows[column]![column]!;
      rows[row] = rows[row]!.map((value, i) => value - factor * rows[column]![i]!);
    }
  }
  const solution = new Array<number>(size).fill(0);
  for (let row = size - 1; row >= 0; row--) {
    let rest = rows[row]![size]!;
    for (let i = row + 1; i < size; i++) rest -= rows[row]![i]! * solution[i]!;
    solution[row] = rest / rows[row]![row]!;
  }
  return solution;
}

/** The series of PEFT for `x Rᵀ`, whose powers are those of Qᵀ. */
function series(
  skew: readonly (readonly number[])[],
  x: Float64Array,
  terms: number,
): Float64Array {
  const weights = weightsOf(terms);
  const sum = Float64Array.from(x);
  let power = x;
  for (const weight of weights) {
    power = times(power, skew).map((value) => -value);
    for (let i = 0; i < sum.length; i++) sum[i]! += weight * power[i]!;
  }
  return sum;
}

/** Of the powers of Q from the first on. */
function weightsOf(terms: number): readonly number[] {
  if (terms === 1) return [];
  if (terms === 2) return [2];
  const last = Math.max(terms, 4) - 1;
  return Array.from({ length: last }, (_, index) => (index === last - 1 ? 1 : 2));
}

/** The most that the series can lengthen a vector. */
function growthOf(norm: number, terms: number): number {
  return weightsOf(terms).reduce((sum, weight, index) => sum + weight * norm ** (index + 1), 1);
}
