/**
 * How adapters are combined. This file imports nothing: the parser of command lines needs the names.
 *
 * - `linear`: W + Σ weightᵢ · scalingᵢ · Bᵢ Aᵢ, exactly, with one rounding, for any ranks and targets.
 *   (PEFT's `linear` combines A and B each by itself, which adds products of one adapter's A with
 *   another's B.)
 * - `cat`: PEFT's name for the same sum, by factors behind one another.
 * - `sequential`: one adapter merged after the other, each as it was trained. Of deltas this is the
 *   sum with weights of 1, here without the roundings in between.
 */
export const COMBINATION_METHODS = ['linear', 'cat', 'sequential'] as const;

export interface Combination {
  readonly method: (typeof COMBINATION_METHODS)[number];
  /** One for each adapter; default 1 each. None with `sequential`. */
  readonly weights?: readonly number[] | undefined;
}
