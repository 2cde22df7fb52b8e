import type { PlannedChange, TensorReference } from '../../plan/plan.ts';
import type { InputFiles } from '../input-files.ts';
import { readNumbers } from '../read-numbers.ts';

type Kronecker = Extract<PlannedChange, { kind: 'kronecker' }>;
type Matrix = Kronecker['left'];

/** Rows and columns of a matrix that is whole or the product of two. */
function shapeOf({ a, b }: Matrix): { readonly rows: number; readonly columns: number } {
  return { rows: a.shape[0] ?? 0, columns: (b ?? a).shape[1] ?? 0 };
}

function elementsOf(tensor: TensorReference | undefined): number {
  return tensor === undefined ? 0 : tensor.shape.reduce((product, extent) => product * extent, 1);
}

/** What `KroneckerRows` keeps: right factors, and a row of each side, in float64. */
export function kroneckerBytes({ left, right }: Kronecker): number {
  const kept = [left, right].map((side) => elementsOf(side.b) + shapeOf(side).columns);
  return kept.reduce((sum, count) => sum + count, 0) * Float64Array.BYTES_PER_ELEMENT;
}

/** Adds rows of `scaling · left ⊗ right`, worked out in float64. */
export class KroneckerRows {
  readonly #scaling: number;
  readonly #left: MatrixRows;
  readonly #right: MatrixRows;

  constructor({ left, right, scaling }: Kronecker, files: InputFiles) {
    this.#scaling = scaling;
    this.#left = new MatrixRows(left, files);
    this.#right = new MatrixRows(right, files);
  }

  /** Row `row` of the product is added to `into`. */
  add(row: number, into: Float64Array): void {
    const { rows, columns } = this.#right;
    const left = this.#left.at(Math.floor(row / rows));
    const right = this.#right.at(row % rows);
    for (let i = 0; i < left.length; i++) {
      const factor = this.#scaling * left[i]!;
      for (let k = 0; k < columns; k++) into[i * columns + k]! += factor * right[k]!;
    }
  }
}

/** Rows of one side: read, or a row of `a` times `b`. */
class MatrixRows {
  readonly rows: number;
  readonly columns: number;
  readonly #matrix: Matrix;
  readonly #files: InputFiles;
  /** All of b, [rank, columns]. */
  readonly #b: Float64Array | undefined;
  #row = -1;
  #values: Float64Array = new Float64Array();

  constructor(matrix: Matrix, files: InputFiles) {
    ({ rows: this.rows, columns: this.columns } = shapeOf(matrix));
    this.#matrix = matrix;
    this.#files = files;
    this.#b = matrix.b && readNumbers(files, matrix.b, 0, elementsOf(matrix.b));
  }

  /** @returns good until the next call */
  at(row: number): Float64Array {
    if (row === this.#row) return this.#values;
    this.#row = row;
    const width = this.#matrix.a.shape[1] ?? 0;
    const stored = readNumbers(this.#files, this.#matrix.a, row * width, width);
    this.#values = this.#b === undefined ? stored : this.#multiply(stored, this.#b);
    return this.#values;
  }

  #multiply(left: Float64Array, b: Float64Array): Float64Array {
    const product = new Float64Array(this.columns);
    for (const [k, factor] of left.entries()) {
      const begin = k * this.columns;
      for (let i = 0; i < product.length; i++) product[i]! += factor * b[begin + i]!;
    }
    return product;
  }
}
