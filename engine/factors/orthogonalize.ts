/**
 * After a pass that leaves less than this share of a vector's length, what is left is not orthogonal
 * to working precision, and the pass is made again.
 */
const LEFT_MIN = 0.1;

/** A vector of which no more than this is left depends on those before it: the rest is rounding. */
const DEPENDENT_MAX = 2 ** -48;

/**
 * Makes vectors orthonormal, in place and in their order (Gram-Schmidt by fours, repeated where a
 * vector loses most of its length). One that depends on those before it becomes zero.
 *
 * Float64 with + - * / and sqrt in a fixed order: the same bytes on every machine.
 *
 * @param vectors [count, length], one behind the other
 * @returns T [count, count], row by row, upper triangular: vector j was Σ_i T[i, j] · vector i
 */
export function orthogonalize(vectors: Float64Array, count: number): Float64Array {
  const length = vectors.length / count;
  const at = (index: number): Float64Array =>
    vectors.subarray(index * length, (index + 1) * length);
  const coefficients = new Float64Array(count * count);
  const nothing = new Float64Array(length);
  const fourFrom = (begin: number, end: number): Four<Float64Array> => {
    const pick = (index: number): Float64Array => (index < end ? at(index) : nothing);
    return [pick(begin), pick(begin + 1), pick(begin + 2), pick(begin + 3)];
  };
  for (let j = 0; j < count; j++) {
    const vector = at(j);
    const whole = norm(vector);
    for (let before = whole, left = 0; before > 0; before = left) {
      for (let i = 0; i < j; i += 4) {
        const others = fourFrom(i, j);
        const shares = fourDots(others, vector);
        subtractFour(vector, others, shares);
        // Beyond j they are shares of nothing.
        for (let k = i; k < Math.min(i + 4, j); k++) coefficients[k * count + j]! += shares[k - i]!;
      }
      left = norm(vector);
      if (left <= DEPENDENT_MAX * whole) {
        vector.fill(0);
        break;
      }
      if (left < LEFT_MIN * before) continue;
      coefficients[j * count + j] = left;
      for (let k = 0; k < length; k++) vector[k]! /= left;
      break;
    }
  }
  return coefficients;
}

type Four<Item> = readonly [Item, Item, Item, Item];

/** Of four vectors with one, in one pass over that. */
function fourDots([a, b, c, d]: Four<Float64Array>, vector: Float64Array): Four<number> {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  for (let i = 0; i < vector.length; i++) {
    const value = vector[i]!;
    s0 += a[i]! * value;
    s1 += b[i]! * value;
    s2 += c[i]! * value;
    s3 += d[i]! * value;
  }
  return [s0, s1, s2, s3];
}

function subtractFour(
  from: Float64Array,
  vectors: Four<Float64Array>,
  [a, b, c, d]: Four<number>,
): void {
  addFourScaled(from, vectors, [-a, -b, -c, -d]);
}

function addFourScaled(
  to: Float64Array,
  [a, b, c, d]: Four<Float64Array>,
  [fa, fb, fc, fd]: Four<number>,
): void {
  for (let i = 0; i < to.length; i++) {
    to[i]! += fa * a[i]! + fb * b[i]! + (fc * c[i]! + fd * d[i]!);
  }
}

/** Σ weight · vector over vectors that lie one behind the other. */
export function combine(vectors: Float64Array, weights: Float64Array): Float64Array {
  const count = weights.length;
  const length = vectors.length / count;
  const at = (index: number): Float64Array =>
    vectors.subarray(index * length, (index + 1) * length);
  const sum = new Float64Array(length);
  const whole = count - (count % 4);
  for (let i = 0; i < whole; i += 4) {
    const four: Four<Float64Array> = [at(i), at(i + 1), at(i + 2), at(i + 3)];
    addFourScaled(sum, four, [weights[i]!, weights[i + 1]!, weights[i + 2]!, weights[i + 3]!]);
  }
  for (let i = whole; i < count; i++) {
    const [vector, weight] = [at(i), weights[i]!];
    for (let k = 0; k < length; k++) sum[k]! += weight * vector[k]!;
  }
  return sum;
}

/** The sum of products, in four sums that a processor can work on side by side. */
export function dot(a: Float64Array, b: Float64Array): number {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  const whole = a.length - (a.length % 4);
  for (let i = 0; i < whole; i += 4) {
    s0 += a[i]! * b[i]!;
    s1 += a[i + 1]! * b[i + 1]!;
    s2 += a[i + 2]! * b[i + 2]!;
    s3 += a[i + 3]! * b[i + 3]!;
  }
  for (let i = whole; i < a.length; i++) s0 += a[i]! * b[i]!;
  return s0 + s1 + (s2 + s3);
}

function norm(vector: Float64Array): number {
  return Math.sqrt(dot(vector, vector));
}
