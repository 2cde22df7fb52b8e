import type { PlannedChange } from '../../plan/plan.ts';
import type { InputFiles } from '../input-files.ts';
import { readNumbers } from '../read-numbers.ts';

type RotationChange = Extract<PlannedChange, { kind: 'rotation' }>;

/** Elements of a rotated block that are made at once, of two rows: sums that wait for no other. */
const TILE = 4;

/** What `BlockRotations` keeps: its blocks in float64, four more while one is made, and two rows of one. */
export function rotationBytes({ blocks, size }: RotationChange): number {
  const count = blocks.shape[0] ?? 0;
  const entries = count * panelEntries(size) + 4 * size * size + 2 * size;
  return entries * Float64Array.BYTES_PER_ELEMENT;
}

/** Rotates rows of a weight block by block, in float64 (PEFT's `OFTRotationModule`). */
export class BlockRotations {
  readonly #size: number;
  /** What the elements of a rotated block are made of, in panels [c / TILE][k][c % TILE]. */
  readonly #blocks: readonly Float64Array[];
  /** The elements of a block of two rows, as they were. */
  readonly #first: Float64Array;
  readonly #second: Float64Array;

  constructor(change: RotationChange, files: InputFiles) {
    const { blocks, size, ofOutputs } = change;
    const [count = 0, numbers = 0] = blocks.shape;
    this.#size = size;
    this.#first = new Float64Array(size);
    this.#second = new Float64Array(size);
    this.#blocks = Array.from({ length: count }, (_, index) => {
      const triangle = readNumbers(files, blocks, index * numbers, numbers);
      const rotation = rotationOf(triangle, change);
      return panelsOf(ofOutputs ? transposed(rotation, size) : rotation, size);
    });
  }

  /**
   * Rotates rows in their place. Each sum ascends, so that rows may be cut anywhere.
   * @param x [rows, columns]
   */
  rotate(x: Float64Array, columns: number): void {
    const isShared = this.#blocks.length === 1;
    for (let begin = 0, index = 0; begin < columns; begin += this.#size, index++) {
      const block = this.#blocks[isShared ? 0 : index]!;
      for (let row = begin; row < x.length; row += 2 * columns) {
        // The last of an odd number of rows is its own partner.
        const partner = row + columns < x.length ? row + columns : row;
        this.#rotatePair(block, x, row, partner);
      }
    }
  }

  /** @param one where the block of a row begins, and `other` that of another */
  #rotatePair(block: Float64Array, x: Float64Array, one: number, other: number): void {
    const size = this.#size;
    const first = this.#first;
    const second = this.#second;
    for (let k = 0; k < size; k++) {
      first[k] = x[one + k]!;
      second[k] = x[other + k]!;
    }
    for (let c = 0; c < size; c += TILE) {
      let a0 = 0;
      let a1 = 0;
      let a2 = 0;
      let a3 = 0;
      let b0 = 0;
      let b1 = 0;
      let b2 = 0;
      let b3 = 0;
      for (let k = 0, at = c * size; k < size; k++, at += TILE) {
        const a = first[k]!;
        const b = second[k]!;
        a0 += block[at]! * a;
        a1 += block[at + 1]! * a;
        a2 += block[at + 2]! * a;
        a3 += block[at + 3]! * a;
        b0 += block[at]! * b;
        b1 += block[at + 1]! * b;
        b2 += block[at + 2]! * b;
        b3 += block[at + 3]! * b;
      }
      const count = Math.min(TILE, size - c);
      store(x, one + c, count, a0, a1, a2, a3);
      store(x, other + c, count, b0, b1, b2, b3);
    }
  }
}

function store(
  x: Float64Array,
  at: number,
  count: number,
  s0: number,
  s1: number,
  s2: number,
  s3: number,
): void {
  x[at] = s0;
  if (count > 1) x[at + 1] = s1;
  if (count > 2) x[at + 2] = s2;
  if (count > 3) x[at + 3] = s3;
}

/** Entries of a block, with zeros to fill the last panel up. */
function panelEntries(size: number): number {
  return Math.ceil(size / TILE) * TILE * size;
}

/** @param rotation row c holds what element c of the rotated block is made of */
function panelsOf(rotation: Float64Array, size: number): Float64Array {
  const panels = new Float64Array(panelEntries(size));
  for (let c = 0; c < size; c++) {
    const begin = (c - (c % TILE)) * size + (c % TILE);
    for (let k = 0; k < size; k++) panels[begin + k * TILE] = rotation[c * size + k]!;
  }
  return panels;
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
