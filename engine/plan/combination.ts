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
 * - `peft_*`: the numbers that PEFT's `add_weighted_adapter` gives under the name behind it.
 */
export const COMBINATION_METHODS = [
  'linear',
  'cat',
  'sequential',
  'svd',
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

export interface Combination {
  readonly method: CombinationMethod;
  /** One for each adapter; default 1 each. None with `sequential`. */
  readonly weights?: readonly number[] | undefined;
  /** `svd`, `peft_svd`: of the result; default: the largest rank of an adapter. */
  readonly rank?: number | undefined;
  /** `peft_ties`, `peft_magnitude_prune`: the share of each factor's values that is kept. */
  readonly density?: number | undefined;
  /** `peft_ties`: what the sign is that values must have; default: that of their sum. */
  readonly majoritySign?: MajoritySign | undefined;
}

export const MAJORITY_SIGNS = ['total', 'frequency'] as const;
export type MajoritySign = (typeof MAJORITY_SIGNS)[number];

type CombinationOption = 'rank' | 'density' | 'majoritySign';

const OPTION_NAMES: readonly (readonly [CombinationOption, string])[] = [
  ['rank', 'rank'],
  ['density', 'density'],
  ['majoritySign', 'majority_sign_method'],
];

const OPTIONS: Readonly<Partial<Record<CombinationMethod, readonly CombinationOption[]>>> = {
  svd: ['rank'],
  peft_svd: ['rank'],
  peft_ties: ['density', 'majoritySign'],
  peft_magnitude_prune: ['density'],
};

/** Of the result of `svd`: far above any adapter's, and no more than the small matrices allow. */
export const SVD_RANK_MAX = 1024;

/**
 * What is wrong with a method and its options, by the name that recipes have for it. What it says ends
 * a sentence that begins with the name.
 */
export function combinationProblems(
  combination: Combination,
): readonly { readonly option: string; readonly problem: string }[] {
  const { method, rank, density } = combination;
  const refused = refusalOf(method);
  if (refused !== undefined) return [{ option: 'method', problem: refused }];
  const taken = OPTIONS[method] ?? [];
  const problems: { option: string; problem: string }[] = [];
  for (const [option, name] of OPTION_NAMES) {
    if (combination[option] === undefined || taken.includes(option)) continue;
    problems.push({ option: name, problem: `is no option of ${method}; leave it out` });
  }
  if (problems.length > 0) return problems;
  if (rank !== undefined && !(Number.isInteger(rank) && rank >= 1 && rank <= SVD_RANK_MAX)) {
    const problem = `is ${rank}; it must be a whole number from 1 to ${SVD_RANK_MAX}`;
    problems.push({ option: 'rank', problem });
  }
  if (taken.includes('density') && !(density !== undefined && density > 0 && density <= 1)) {
    const given = density === undefined ? 'is missing' : `is ${density}`;
    const problem = `${given}; ${method} needs the share of values to keep, above 0 and at most 1`;
    problems.push({ option: 'density', problem });
  }
  return problems;
}

/** Why a method that PEFT has is not merged under its name. */
function refusalOf(method: CombinationMethod): string | undefined {
  if (method.startsWith('peft_dare_')) {
    return (
      `is ${method}: PEFT drops values by chance, from a generator without a seed, so its numbers ` +
      'cannot be had again. Use a method without chance, such as svd or peft_ties'
    );
  }
  if (method === 'peft_ties_svd' || method === 'peft_magnitude_prune_svd') {
    return (
      `is ${method}: it prunes whole deltas, which are as large as their weights and of full rank ` +
      'then, and keeps the largest singular values of what is left. That takes minutes and ' +
      `gigabytes for each tensor. Use ${method.slice(0, -'_svd'.length)}, which prunes the factors`
    );
  }
  return undefined;
}
