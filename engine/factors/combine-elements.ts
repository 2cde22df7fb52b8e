import type { CombinedDeltas } from '../plan/plan.ts';

const { fround } = Math;

/** The rule by which values at one place become one. */
export type ElementRule = Pick<CombinedDeltas, 'method' | 'density' | 'majoritySign'>;

/**
 * Combines tensors of one shape element by element as PEFT 0.21.2 does in
 * `_generalized_task_arithmetic_weighted_adapter` (`peft/utils/merge_utils.py`), rounding to float32
 * where it does, so that the values are the same. Among magnitudes that equal the smallest one kept,
 * those first in the tensor are kept; which ones torch keeps, it does not say.
 *
 * @param tensors float32 values, which are worked on in place
 * @param weights of each, rounded to float32
 */
export function combineElements(
  tensors: readonly Float32Array[],
  weights: readonly number[],
  rule: ElementRule,
): Float32Array {
  if (rule.density !== undefined) for (const tensor of tensors) prune(tensor, rule.density);
  const isElected = rule.method === 'peft_ties';
  const result = new Float32Array(tensors[0]?.length ?? 0);
  const values = new Float32Array(tensors.length);
  for (let i = 0; i < result.length; i++) {
    for (let t = 0; t < values.length; t++) values[t] = tensors[t]![i]!;
    result[i] = isElected
      ? electedMean(values, weights, rule.majoritySign ?? 'total')
      : weightedSum(values, weights);
  }
  return result;
}

/** Sets all but the largest magnitudes to zero: `int(density · n)` stay. */
function prune(tensor: Float32Array, density: number): void {
  const kept = Math.floor(density * tensor.length);
  if (kept === tensor.length) return;
  const sorted = tensor.map(Math.abs).sort();
  const threshold = kept === 0 ? Number.POSITIVE_INFINITY : sorted[sorted.length - kept]!;
  let larger = 0;
  for (const value of tensor) if (Math.abs(value) > threshold) larger++;
  let equalsLeft = kept - larger;
  for (let i = 0; i < tensor.length; i++) {
    const magnitude = Math.abs(tensor[i]!);
    if (magnitude > threshold) continue;
    if (magnitude < threshold || equalsLeft === 0) tensor[i] = 0;
    else equalsLeft--;
  }
}

function weightedSum(values: Float32Array, weights: readonly number[]): number {
  let sum = 0;
  for (let t = 0; t < values.length; t++) sum = fround(sum + fround(values[t]! * weights[t]!));
  return sum;
}

/** TIES: the weighted mean of the values that have the sign of their unweighted sum, or of most. */
function electedMean(
  values: Float32Array,
  weights: readonly number[],
  majoritySign: 'total' | 'frequency',
): number {
  let majority = 0;
  for (const value of values) {
    majority = fround(majority + (majoritySign === 'total' ? value : Math.sign(value)));
  }
  const elected = majority >= 0 ? 1 : -1;
  let sum = 0;
  let count = 0;
  for (let t = 0; t < values.length; t++) {
    if (Math.sign(values[t]!) !== elected) continue;
    sum = fround(sum + fround(values[t]! * weights[t]!));
    count++;
  }
  return fround(sum / Math.max(count, 1));
}
