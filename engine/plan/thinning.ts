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

export type ParameterName = keyof CombinationParameters;

/**
 * What is wrong with a method's parameters, and which of them, if anything is.
 * @param count of adapters
 */
export function parameterProblem(
  method: string,
  parameters: CombinationParameters,
  count: number,
): { readonly parameter: ParameterName; readonly message: string } | undefined {
  const { density, seed, majoritySign } = parameters;
  const kind = isThinned(method) ? THINNED[method] : undefined;
  if (kind === undefined && density !== undefined) {
    const message = `${method} takes no density, it adds all of every delta: leave it out`;
    return { parameter: 'density', message };
  }
  const problem = kind === undefined ? undefined : densityProblem(method, density, count);
  if (problem !== undefined) return { parameter: 'density', message: problem };
  if (seed !== undefined && kind?.isRandom !== true) {
    const message = `${method} chooses nothing at random and takes no seed: leave it out`;
    return { parameter: 'seed', message };
  }
  if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
    return { parameter: 'seed', message: `the seed ${seed} is not a whole number of at least 0` };
  }
  if (majoritySign !== undefined && kind?.isElected !== true) {
    const message = `${method} elects no sign by a majority: leave it out`;
    return { parameter: 'majoritySign', message };
  }
  return undefined;
}

function densityProblem(
  method: string,
  density: CombinationParameters['density'],
  count: number,
): string | undefined {
  if (density === undefined) {
    return (
      `${method} needs a density, the share of each delta's elements that stays: a number above 0 ` +
      'and up to 1, such as 0.2'
    );
  }
  const given = typeof density === 'number' ? [density] : density;
  if (typeof density !== 'number' && given.length !== count) {
    return `there are ${given.length} densities for ${count} adapters; give one, or one for each`;
  }
  const bad = given.find((value) => !(value > 0 && value <= 1));
  if (bad === undefined) return undefined;
  return `the density ${bad} is not above 0 and up to 1: it is the share of a delta that stays`;
}

function densitiesOf({ density = 1 }: CombinationParameters, count: number): readonly number[] {
  return typeof density === 'number' ? Array.from({ length: count }, () => density) : density;
}
