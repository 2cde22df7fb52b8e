import type { Combination, CombinationParameters } from './combination.ts';

/** Methods that thin deltas out, each a way of choosing what stays and a way of combining it. */
const THINNED = {
  magnitude_prune: { isRandom: false, isElected: false },
  ties: { isRandom: false, isElected: true },
  dare_linear: { isRandom: true, isElected: false },
  dare_ties: { isRandom: true, isElected: true },
} as const;

type ThinnedMethod = keyof typeof THINNED;

/** A combination by a method that thins deltas out, with all defaults filled in. */
export interface Thinning {
  readonly method: ThinnedMethod;
  /** One for each adapter. */
  readonly densities: readonly number[];
  /** Where what stays is chosen at random. */
  readonly seed?: number;
  /** Where adapters elect a sign. */
  readonly majoritySign?: 'total' | 'frequency';
}

export function isThinned(method: string | undefined): method is ThinnedMethod {
  return method !== undefined && Object.hasOwn(THINNED, method);
}

/** @returns undefined for a method that adds deltas as they are */
export function thinningOf(combination: Combination | undefined, count: number) {
  const { method, parameters = {} } = combination ?? {};
  if (!isThinned(method)) return undefined;
  const { isRandom, isElected } = THINNED[method];
  const thinning: Thinning = {
    method,
    densities: densitiesOf(parameters, count),
    ...(isRandom ? { seed: parameters.seed ?? 0 } : {}),
    ...(isElected ? { majoritySign: parameters.majoritySign ?? 'total' } : {}),
  };
  return thinning;
}

/**
 * Whether some deltas are only their sum once they are thinned out: all of them stay whole, and
 * nobody can be outvoted.
 */
export function isPlainSum(method: ThinnedMethod, densities: readonly number[]): boolean {
  return (
    densities.every((one) => one === 1) && (densities.length < 2 || !THINNED[method].isElected)
  );
}

function densitiesOf({ density = 1 }: CombinationParameters, count: number): readonly number[] {
  return typeof density === 'number' ? Array.from({ length: count }, () => density) : density;
}
