import { jacobiSvd } from './jacobi-svd.ts';
import { combine, dot, orthogonalize } from './orthogonalize.ts';

/** `B A` as float32: A [rank, inputs] and B [outputs, rank], row by row. */
export interface FactorPair {
  readonly a: Float32Array;
  readonly b: Float32Array;
}

/**
 * The best approximation of `B A` of a lower rank, by its singular values and vectors, from the
 * small matrices alone: with Bᵀ and A made orthonormal, B = Q₁ T₁ and A = T₂ᵀ Q₂ᵀ, they are those of
 * T₁ T₂ᵀ [total, total]. All in float64, rounded to float32 once at the end: an element is within
 * 2⁻²³ Σₖ |Bᵢₖ Aₖⱼ| of the exact truncation, and what float64 loses is far below that unless the first
 * singular value left out equals the last one kept (then either is right).
 *
 * @param b columns of B, [total, outputs]; worked on in place
 * @param a rows of A, [total, inputs]; worked on in place
 * @param total rank of the sum
 * @param rank to be kept
 * @returns B = U S and A = Vᵀ, as PEFT's `svd` divides them
 */
export function truncateSum(
  b: Float64Array,
  a: Float64Array,
  total: number,
  rank: number,
): FactorPair {
  const left = orthogonalize(b, total);
  const right = orthogonalize(a, total);
  const { scaledLeft, right: vectors, order } = jacobiSvd(coreOf(left, right, total), total);
  const kept = order.slice(0, rank);
  const outputs = b.length / total;
  const inputs = a.length / total;
  const pair = { a: new Float32Array(rank * inputs), b: new Float32Array(outputs * rank) };
  for (const [k, index] of kept.entries()) {
    const weights = (matrix: Float64Array): Float64Array =>
      matrix.subarray(index * total, (index + 1) * total);
    pair.a.set(combine(a, weights(vectors)), k * inputs);
    const column = combine(b, weights(scaledLeft));
    for (let row = 0; row < outputs; row++) pair.b[row * rank + k] = column[row]!;
  }
  return pair;
}

/** T₁ T₂ᵀ, column by column: both triangular matrices are given row by row. */
function coreOf(left: Float64Array, right: Float64Array, size: number): Float64Array {
  const core = new Float64Array(size * size);
  const row = (matrix: Float64Array, index: number): Float64Array =>
    matrix.subarray(index * size, (index + 1) * size);
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < size; j++) core[j * size + i] = dot(row(left, i), row(right, j));
  }
  return core;
}
