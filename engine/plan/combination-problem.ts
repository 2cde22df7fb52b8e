import { type CombinationMethod, type CombinationParameters, SVD_RANK_MAX } from './combination.ts';

export type ParameterName = keyof CombinationParameters;

/** What each method takes; one that is not here takes nothing. */
const TAKEN: Readonly<Partial<Record<CombinationMethod, readonly ParameterName[]>>> = {
  svd: ['rank'],
  ties: ['density', 'majoritySign'],
  dare_linear: ['density', 'seed'],
  dare_ties: ['density', 'seed', 'majoritySign'],
  magnitude_prune: ['density'],
  peft_svd: ['rank'],
  peft_ties: ['density', 'majoritySign'],
  peft_magnitude_prune: ['density'],
};

/** Why a method does not take a parameter. */
const NOT_TAKEN: Readonly<Record<ParameterName, string>> = {
  rank: 'takes no rank, it keeps those of the adapters: leave it out',
  density: 'takes no density, it adds all of every delta: leave it out',
  seed: 'chooses nothing at random and takes no seed: leave it out',
  majoritySign: 'elects no sign by a majority: leave it out',
};

const PARAMETERS = Object.keys(NOT_TAKEN) as ParameterName[];

/**
 * What is wrong with a method and its parameters, and with which of them, if anything is.
 * @param count of adapters
 */
export function combinationProblem(
  method: CombinationMethod,
  parameters: CombinationParameters,
  count: number,
): { readonly parameter: ParameterName | 'method'; readonly message: string } | undefined {
  const refused = refusalOf(method);
  if (refused !== undefined) return { parameter: 'method', message: refused };
  const taken = TAKEN[method] ?? [];
  const other = PARAMETERS.find((name) => parameters[name] !== undefined && !taken.includes(name));
  if (other !== undefined) return { parameter: other, message: `${method} ${NOT_TAKEN[other]}` };
  const { rank, density, seed } = parameters;
  if (rank !== undefined && !(Number.isInteger(rank) && rank >= 1 && rank <= SVD_RANK_MAX)) {
    const message = `the rank ${rank} is not a whole number from 1 to ${SVD_RANK_MAX}`;
    return { parameter: 'rank', message };
  }
  const problem = taken.includes('density') ? densityProblem(method, density, count) : undefined;
  if (problem !== undefined) return { parameter: 'density', message: problem };
  if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
    return { parameter: 'seed', message: `the seed ${seed} is not a whole number of at least 0` };
  }
  return undefined;
}

function densityProblem(
  method: CombinationMethod,
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
  if (bad !== undefined) {
    return `the density ${bad} is not above 0 and up to 1: it is the share of a delta that stays`;
  }
  if (method.startsWith('peft_') && new Set(given).size > 1) {
    return `${method} takes one density for all adapters, as PEFT does`;
  }
  return undefined;
}

/** Why a method that PEFT has is not merged under its name. */
function refusalOf(method: CombinationMethod): string | undefined {
  if (method.startsWith('peft_dare_')) {
    const exact = method.replace('peft_', '').replace('_svd', '');
    return (
      `${method}: PEFT drops values by chance, from a generator without a seed, so its numbers ` +
      `cannot be had again. Use ${exact}, of whole deltas and with a seed`
    );
  }
  if (method === 'peft_ties_svd' || method === 'peft_magnitude_prune_svd') {
    const exact = method.slice('peft_'.length, -'_svd'.length);
    return (
      `${method}: it prunes whole deltas, which are as large as their weights and of full rank ` +
      'then, and keeps the largest singular values of what is left. That takes minutes and ' +
      `gigabytes for each tensor. Use ${exact}, of whole deltas and without that cut`
    );
  }
  return undefined;
}
