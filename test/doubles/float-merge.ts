/** What float32 arithmetic may make of a merged weight, whatever the order of its sums. */
import { type FloatDtypeName, halfGapAt } from './decode-tensor.ts';

export interface MergedElement {
  /** `weight + scaling * (left · right)` in float64. */
  readonly value: number;
  /** The furthest from it that the same in float32 can be, before the last rounding. */
  readonly bound: number;
}

/** Rounding of one float32 operation, relative to its result. */
const F32_UNIT = 2 ** -24;

export function mergeInFloat64(
  weight: number,
  left: Float64Array,
  right: Float64Array,
  scaling: number,
): MergedElement {
  let sum = 0;
  let magnitude = 0;
  for (const [k, factor] of left.entries()) {
    const term = factor * (right[k] ?? Number.NaN);
    sum += term;
    magnitude += Math.abs(term);
  }
  const value = weight + scaling * sum;
  // As many products and sums as the rank, the scaling and the last sum, each rounded once.
  const terms = Math.abs(scaling) * magnitude * (left.length + 3);
  return { value, bound: F32_UNIT * (terms + Math.abs(value)) };
}

/**
 * Whether a stored value is the rounding of one that float32 arithmetic can have reached. Two
 * stored values that differ and are both so have every rounding boundary between them within the
 * bound: they are neighbours, unless weight and delta cancel and leave less than the bound.
 */
export function isRoundingOf(
  stored: number,
  { value, bound }: MergedElement,
  dtype: FloatDtypeName,
): boolean {
  return Math.abs(stored - value) <= halfGapAt(stored, dtype) + bound;
}
