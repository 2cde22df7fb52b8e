/**
 * How adapters are combined. This file imports nothing: the parser of command lines needs the names.
 *
 * - `linear`: W + Σ weightᵢ · scalingᵢ · Bᵢ Aᵢ, exactly, with one rounding, for any ranks and targets.
 *   (PEFT's `linear` combines A and B each by itself, which adds products of one adapter's A with
 *   another's B.)
 * - `cat`: PEFT's name for the same sum, by factors behind one another.
 * - `sequential`: one adapter merged after the other, each as it was trained. Of deltas this is the
 *   sum with weights of 1, here without the roundings in between.
 * - `magnitude_prune`, `ties`, `dare_linear`, `dare_ties`: PEFT's formulas, of the whole deltas (see
 *   `combine-rows.ts`). They thin every delta out to a share of its elements, its `density`.
 */
export const COMBINATION_METHODS = [
  'linear',
  'cat',
  'sequential',
  'ties',
  'dare_linear',
  'dare_ties',
  'magnitude_prune',
] as const;

/** Whose sign wins, element by element: that of the sum of all deltas, or that of most of them. */
export const MAJORITY_SIGNS = ['total', 'frequency'] as const;

export interface Combination {
  readonly method: (typeof COMBINATION_METHODS)[number];
  /** One for each adapter; default 1 each. None with `sequential`. */
  readonly weights?: readonly number[] | undefined;
  /** What the method needs besides. */
  readonly parameters?: CombinationParameters | undefined;
}

export interface CombinationParameters {
  /** Share of the elements of each delta that stays: one for all adapters, or one for each. */
  readonly density?: number | readonly number[] | undefined;
  /** Of the random choice that DARE makes; default 0. */
  readonly seed?: number | undefined;
  /** Default `total`. */
  readonly majoritySign?: (typeof MAJORITY_SIGNS)[number] | undefined;
}
