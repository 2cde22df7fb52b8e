import { WeldlineError } from '../errors.ts';
import { combineFactors, type ReadWhole } from '../factors/combine-factors.ts';
import type { PlannedTensor } from '../plan/plan.ts';
import type { AddedRow, ExactFactors } from './combined-rows.ts';

/** What float32 leaves of an orthonormal basis, and what squares of singular values may be off by. */
const BASIS_ERROR_MAX = 2 ** -19;

/** A direction with less of the largest singular value is rounding, and adds nothing. */
const NOTHING = 2 ** -36;

/** Enough to tell a direction left out that is as large as one kept. */
const POWER_STEPS = 12;

/** Directions of a truncated sum, and what it does along them. */
interface Basis {
  /** Orthonormal, of the columns of the tensor as stored. */
  readonly vectors: readonly Float64Array[];
  /** The smallest singular value kept, and the largest. */
  readonly smallest: number;
  readonly largest: number;
}

/**
 * Rows of a truncated sum of deltas: the exact row in float64, projected on the directions kept. The
 * directions are those of the merge, but are not believed: they must be orthonormal, the sum must map
 * them among themselves, and power iteration over what they leave out must find nothing larger than
 * the smallest of them. Then they are the first singular vectors, however they were found.
 *
 * @returns a function of a row of the tensor as stored
 * @throws WeldlineError `verify.recomputation-mismatch`
 */
export function truncatedRows(
  tensor: PlannedTensor,
  factors: readonly ExactFactors[],
  read: ReadWhole,
): (row: number) => AddedRow {
  const isTransposed = tensor.deltas?.[0]?.transposed === true;
  const sum = new SumOfProducts(factors, isTransposed);
  const basis = basisOf(tensor, isTransposed, read);
  const problem = problemOf(basis, sum);
  if (problem !== undefined) {
    throw new WeldlineError(
      'verify.recomputation-mismatch',
      `"${tensor.name}": the combined factors are not the largest singular vectors of the sum ` +
        `(${problem}). The merge is wrong; delete the output and report this.`,
    );
  }
  return (row) => {
    const whole = sum.row(row);
    const length = norm(whole);
    const product = new Float64Array(whole.length);
    const magnitude = new Float64Array(whole.length);
    for (const vector of basis.vectors) {
      const share = dot(whole, vector);
      for (let i = 0; i < whole.length; i++) {
        product[i]! += share * vector[i]!;
        // The share is as exact as the vector, which was rounded to float32.
        magnitude[i]! += (Math.abs(share) + length) * Math.abs(vector[i]!);
      }
    }
    return { product, magnitude };
  };
}

function basisOf(tensor: PlannedTensor, isTransposed: boolean, read: ReadWhole): Basis {
  const { deltas = [], combined } = tensor;
  const rank = combined?.rank ?? 0;
  const { a, b } = combined
    ? combineFactors(deltas, combined, read)
    : { a: new Float32Array(), b: new Float32Array() };
  const [inputs, outputs] = [a.length / rank, b.length / rank];
  const right = Array.from({ length: rank }, (_, k) =>
    Float64Array.from(a.subarray(k * inputs, (k + 1) * inputs)),
  );
  const left = Array.from({ length: rank }, (_, k) =>
    Float64Array.from({ length: outputs }, (__, row) => b[row * rank + k]!),
  );
  const values = left.map(norm);
  const largest = Math.max(...values);
  const kept = values.flatMap((value, k) => (value > NOTHING * largest ? [k] : []));
  const vectors = kept.map((k) =>
    isTransposed ? left[k]!.map((each) => each / values[k]!) : right[k]!,
  );
  const smallest = kept.length < rank ? 0 : Math.min(...values);
  return { vectors, smallest, largest };
}

/** What shows that directions are not the first singular vectors of a sum, if anything does. */
function problemOf({ vectors, smallest, largest }: Basis, sum: SumOfProducts): string | undefined {
  for (const [k, vector] of vectors.entries()) {
    for (const [l, other] of vectors.slice(0, k + 1).entries()) {
      const expected = k === l ? 1 : 0;
      if (!(Math.abs(dot(vector, other) - expected) <= BASIS_ERROR_MAX)) return 'not orthonormal';
    }
  }
  const tolerance = BASIS_ERROR_MAX * largest * largest;
  const mixed = new Float64Array(sum.columns);
  for (const [k, vector] of vectors.entries()) addScaled(mixed, vector, k % 2 === 0 ? 1 : -0.75);
  const image = sum.squared(mixed);
  removeAlong(image, vectors);
  if (!(norm(image) <= tolerance * Math.sqrt(Math.max(1, vectors.length)))) return 'not invariant';
  let rest = sum.start();
  for (let step = 0; step < POWER_STEPS; step++) {
    removeAlong(rest, vectors);
    const length = norm(rest);
    if (length === 0) return undefined;
    const unit = rest.map((value) => value / length);
    rest = sum.squared(unit);
    // A bound from below on the square of the largest singular value left out.
    if (!(dot(unit, rest) <= smallest * smallest + tolerance)) return 'a larger one is left out';
  }
  return undefined;
}

/** Σ scaling · B A, or its transpose, as a map that is never written out. */
class SumOfProducts {
  readonly #factors: readonly ExactFactors[];
  readonly #isTransposed: boolean;
  readonly #inputs: number;
  readonly #outputs: number;
  readonly columns: number;

  constructor(factors: readonly ExactFactors[], isTransposed: boolean) {
    const [{ a, b, rank }] = factors as readonly [ExactFactors];
    this.#factors = factors;
    this.#isTransposed = isTransposed;
    this.#inputs = a.length / rank;
    this.#outputs = b.length / rank;
    this.columns = isTransposed ? this.#outputs : this.#inputs;
  }

  row(index: number): Float64Array {
    const rows = this.#isTransposed ? this.#inputs : this.#outputs;
    const unit = new Float64Array(rows);
    unit[index] = 1;
    return this.#isTransposed ? this.#forward(unit) : this.#backward(unit);
  }

  /** The sum's transpose times the sum times a vector of columns. */
  squared(vector: Float64Array): Float64Array {
    return this.#isTransposed
      ? this.#forward(this.#backward(vector))
      : this.#backward(this.#forward(vector));
  }

  /** A vector with something of all that the sum can do. */
  start(): Float64Array {
    const rows = this.#isTransposed ? this.#inputs : this.#outputs;
    const mixed = Float64Array.from({ length: rows }, (_, i) => ((i * 7919) % 101) - 50.5);
    return this.#isTransposed ? this.#forward(mixed) : this.#backward(mixed);
  }

  /** From inputs to outputs. */
  #forward(vector: Float64Array): Float64Array {
    const result = new Float64Array(this.#outputs);
    for (const { a, b, rank, scaling } of this.#factors) {
      const inner = Float64Array.from(
        { length: rank },
        (_, k) => scaling * dot(vector, a.subarray(k * this.#inputs, (k + 1) * this.#inputs)),
      );
      for (let row = 0; row < this.#outputs; row++) {
        result[row]! += dot(inner, b.subarray(row * rank, (row + 1) * rank));
      }
    }
    return result;
  }

  /** From outputs to inputs. */
  #backward(vector: Float64Array): Float64Array {
    const result = new Float64Array(this.#inputs);
    for (const { a, b, rank, scaling } of this.#factors) {
      const inner = new Float64Array(rank);
      for (let row = 0; row < vector.length; row++) {
        const value = vector[row]!;
        if (value !== 0) addScaled(inner, b.subarray(row * rank, (row + 1) * rank), value);
      }
      for (let k = 0; k < rank; k++) {
        const row = a.subarray(k * this.#inputs, (k + 1) * this.#inputs);
        addScaled(result, row, scaling * inner[k]!);
      }
    }
    return result;
  }
}

function removeAlong(vector: Float64Array, directions: readonly Float64Array[]): void {
  for (const direction of directions) addScaled(vector, direction, -dot(vector, direction));
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

function addScaled(to: Float64Array, from: Float64Array, factor: number): void {
  for (let i = 0; i < to.length; i++) to[i]! += factor * from[i]!;
}

function norm(vector: Float64Array): number {
  return Math.sqrt(dot(vector, vector));
}
