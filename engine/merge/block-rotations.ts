import type { PlannedChange } from '../plan/plan.ts';
import type { InputFiles } from './input-files.ts';
import { readNumbers } from './read-numbers.ts';

type RotationChange = Extract<PlannedChange, { kind: 'rotation' }>;

/** What `BlockRotations` keeps: every block in float64, three more while they are made, a row. */
export function rotationBytes({ blocks, size }: RotationChange, columns: number): number {
  const count = (blocks.shape[0] ?? 0) + 3;
  return (count * size * size + columns) * Float64Array.BYTES_PER_ELEMENT;
}

/** Rotates rows of a weight block by block, in float64 (PEFT's `OFTRotationModule`). */
export class BlockRotations {
  readonly #size: number;
  /** Row-major; row c holds what element c of a rotated block is made of. */
  readonly #blocks: readonly Float64Array[];

  constructor(change: RotationChange, files: InputFiles) {
    const { blocks, size, ofOutputs } = change;
    const [count = 0, numbers = 0] = blocks.shape;
    this.#size = size;
    this.#blocks = Array.from({ length: count }, (_, index) => {
      const triangle = readNumbers(files, blocks, index * numbers, numbers);
      const rotation = rotationOf(triangle, change);
      return ofOutputs ? transposed(rotation, size) : rotation;
    });
  }

  /** Rotates the row in its place. */
  rotate(row: Float64Array): void {
    const size = this.#size;
    const isShared = this.#blocks.length === 1;
    for (let begin = 0, index = 0; begin < row.length; begin += size, index++) {
      const block = this.#blocks[isShared ? 0 : index]!;
      const before = row.slice(begin, begin + size);
      for (let c = 0; c < size; c++) row[begin + c] = dot(block, c * size, before);
    }
  }
}

/** Four sums side by side: in one, each addition would wait for the last. */
function dot(a: Float64Array, begin: number, b: Float64Array): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let k = 0;
  for (; k + 3 < b.length; k += 4) {
    const at = begin + k;
    s0 += a[at]! * b[k]!;
    s1 += a[at + 1]! * b[k + 1]!;
    s2 += a[at + 2]! * b[k + 2]!;
    s3 += a[at + 3]! * b[k + 3]!;
  }
  for (; k < b.length; k++) s0 += a[begin + k]! * b[k]!;
  return s0 + s1 + (s2 + s3);
}

/** `(I − Q) (I + Q)⁻¹`, or PEFT's series for it. */
function rotationOf(triangle: Float64Array, change: RotationChange): Float64Array {
  const { size, neumannTerms, radius } = change;
  const skew = skewSymmetric(triangle, size);
  if (radius !== undefined) constrain(skew, radius);
  return neumannTerms === undefined ? cayley(skew, size) : neumann(skew, size, neumannTerms);
}

function skewSymmetric(triangle: Float64Array, size: number): Float64Array {
  const skew = new Float64Array(size * size);
  let next = 0;
  for (let row = 0; row < size; row++) {
    for (let column = row + 1; column < size; column++) {
      const value = triangle[next++]!;
      skew[row * size + column] = value;
      skew[column * size + row] = -value;
    }
  }
  return skew;
}

/** Scales a matrix down to a Frobenius norm (`coft`). */
function constrain(matrix: Float64Array, radius: number): void {
  const norm = Math.sqrt(matrix.reduce((sum, value) => sum + value * value, 0));
  if (norm <= radius) return;
  for (const [index, value] of matrix.entries()) matrix[index] = (radius / norm) * value;
}

/**
 * `I + 2Q + 2Q² + … + 2Qⁿ⁻² + Qⁿ⁻¹`. As PEFT has it: with one term it is I, with two `I + 2Q`, and
 * with three as with four.
 */
function neumann(skew: Float64Array, size: number, terms: number): Float64Array {
  const sum = identity(size);
  if (terms === 1) return sum;
  addTo(sum, 2, skew);
  if (terms === 2) return sum;
  let power = multiply(skew, skew, size);
  addTo(sum, 2, power);
  for (let exponent = 3; exponent < terms - 1; exponent++) {
    power = multiply(power, skew, size);
    addTo(sum, 2, power);
  }
  addTo(sum, 1, multiply(power, skew, size));
  return sum;
}

/** Solves `(I − Q) Rᵀ = I + Q` by elimination; I − Q is never singular, for Q is skew-symmetric. */
function cayley(skew: Float64Array, size: number): Float64Array {
  const left = identity(size);
  const right = identity(size);
  addTo(left, -1, skew);
  addTo(right, 1, skew);
  for (let column = 0; column < size; column++) {
    swapRows([left, right], size, column, pivotRow(left, size, column));
    for (let row = 0; row < size; row++) {
      if (row === column) continue;
      const factor = left[row * size + column]! / left[column * size + column]!;
      if (factor === 0) continue;
      for (const matrix of [left, right]) {
        for (let i = 0; i < size; i++) {
          matrix[row * size + i]! -= factor * matrix[column * size + i]!;
        }
      }
    }
  }
  for (let row = 0; row < size; row++) {
    for (let i = 0; i < size; i++) right[row * size + i]! /= left[row * size + row]!;
  }
  return transposed(right, size);
}

function pivotRow(matrix: Float64Array, size: number, column: number): number {
  let best = column;
  for (let row = column + 1; row < size; row++) {
    const isLarger =
      Math.abs(matrix[row * size + column]!) > Math.abs(matrix[best * size + column]!);
    if (isLarger) best = row;
  }
  return best;
}

function swapRows(matrices: readonly Float64Array[], size: number, a: number, b: number): void {
  if (a === b) return;
  for (const matrix of matrices) {
    const held = matrix.slice(a * size, (a + 1) * size);
    matrix.copyWithin(a * size, b * size, (b + 1) * size);
    matrix.set(held, b * size);
  }
}

function identity(size: number): Float64Array {
  const matrix = new Float64Array(size * size);
  for (let i = 0; i < size; i++) matrix[i * (size + 1)] = 1;
  return matrix;
}

function addTo(sum: Float64Array, factor: number, term: Float64Array): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += factor * term[i]!;
}

function multiply(a: Float64Array, b: Float64Array, size: number): Float64Array {
  const product = new Float64Array(size * size);
  for (let row = 0; row < size; row++) {
    for (let k = 0; k < size; k++) {
      const factor = a[row * size + k]!;
      for (let i = 0; i < size; i++) product[row * size + i]! += factor * b[k * size + i]!;
    }
  }
  return product;
}

function transposed(matrix: Float64Array, size: number): Float64Array {
  const other = new Float64Array(size * size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      other[column * size + row] = matrix[row * size + column]!;
    }
  }
  return other;
}
