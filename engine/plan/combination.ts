/**
 * How adapters are combined. This file imports nothing: the parser of command lines needs the names.
 *
 * - `linear`: W + Σ weightᵢ · scalingᵢ · Bᵢ Aᵢ, exactly, with one rounding, for any ranks and targets.
 *   (PEFT's `linear` combines A and B each by itself, which adds products of one adapter's A with
 *   another's B.)
 * - `cat`: PEFT's name for the same sum, by factors behind one another.
 * - `sequential`: one adapter merged after the other, each as it was trained. Of deltas this is the
 *   sum with weights of 1, here without the roundings in between.
 * - `svd`: the same sum, of each tensor the best approximation of `rank`.
 * - `magnitude_prune`, `ties`, `dare_linear`, `dare_ties`: PEFT's formulas, of the whole deltas (see
 *   `combine-rows.ts`). They thin every delta out to a share of its elements, its `density`.
 * - `peft_*`: the numbers that PEFT's `add_weighted_adapter` gives under the name behind it.
 */
export const COMBINATION_METHODS = [
  'linear',
  'cat',
  'sequential',
  'svd',
  'ties',
  'dare_linear',
  'dare_ties',
  'magnitude_prune',
  'peft_linear',
  'peft_cat',
  'peft_svd',
  'peft_ties',
  'peft_magnitude_prune',
  'peft_ties_svd',
  'peft_magnitude_prune_svd',
  'peft_dare_linear',
  'peft_dare_ties',
  'peft_dare_linear_svd',
  'peft_dare_ties_svd',
] as const;

export type CombinationMethod = (typeof COMBINATION_METHODS)[number];

/** Whose sign wins, element by element: that of the sum of all deltas, or that of most of them. */
export const MAJORITY_SIGNS = ['total', 'frequency'] as const;
export type MajoritySign = (typeof MAJORITY_SIGNS)[number];

export interface Combination {
  readonly method: CombinationMethod;
  /** One for each adapter; default 1 each. None with `sequential`. */
  readonly weights?: readonly number[] | undefined;
  /** What the method needs besides. */
  readonly parameters?: CombinationParameters | undefined;
}

export interface CombinationParameters {
  /** Of the result of `svd`; default: the largest rank of an adapter. */
  readonly rank?: number | undefined;
  /** Share of the elements of each delta that stays: one for all adapters, or one for each. */
  readonly density?: number | readonly number[] | undefined;
  /** Of the random choice that DARE makes; default 0. */
  readonly seed?: number | undefined;
  /** Default `total`. */
  readonly majoritySign?: MajoritySign | undefined;
}

/** Of the result of `svd`: far above any adapter's, and no more than the small matrices allow. */
export const SVD_RANK_MAX = 1024;
