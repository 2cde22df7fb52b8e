import { z } from 'zod';
import {
  COMBINATION_METHODS,
  type CombinationParameters,
  MAJORITY_SIGNS,
  SVD_RANK_MAX,
} from '../engine/plan/combination.ts';
import { combinationProblem, type ParameterName } from '../engine/plan/combination-problem.ts';
import { isThinned } from '../engine/plan/thinning.ts';

/** Of a delta's elements the share that stays. */
export const density = z
  .number()
  .gt(0)
  .max(1)
  .optional()
  .describe("a number above 0 and up to 1, the share of a delta's elements that stays");

export const combination = z
  .strictObject({
    method: z
      .enum(COMBINATION_METHODS)
      .describe(
        'linear (the sum of all adapters, each times its weight), cat (the same), sequential ' +
          '(one after the other, without weights), svd (the sum, cut to a rank), a method that ' +
          'thins deltas out: ties, dare_linear, dare_ties or magnitude_prune, or the numbers of ' +
          'PEFT: peft_linear, peft_cat, peft_svd, peft_ties or peft_magnitude_prune',
      ),
    rank: z
      .int()
      .min(1)
      .max(SVD_RANK_MAX)
      .optional()
      .describe(`a whole number from 1 to ${SVD_RANK_MAX}, the rank that svd keeps`),
    density,
    seed: z
      .int()
      .min(0)
      .optional()
      .describe('a whole number of at least 0, which decides what DARE keeps (default 0)'),
    majority_sign: z
      .enum(MAJORITY_SIGNS)
      .optional()
      .describe(
        'total or frequency: the sign that wins an element is that of the sum of all deltas ' +
          '(default) or that of most of them',
      ),
  })
  .describe(
    'a mapping {method, rank, density, seed, majority_sign}, which a recipe with several adapters ' +
      'needs',
  );

/** What of a recipe the parameters of a method are. */
interface ParametersShape {
  readonly adapters: readonly { readonly density?: number | undefined }[];
  readonly combination?: z.infer<typeof combination> | undefined;
}

const KEYS: Readonly<Record<ParameterName | 'method', string>> = {
  method: 'method',
  rank: 'rank',
  density: 'density',
  seed: 'seed',
  majoritySign: 'majority_sign',
};

/** @returns undefined where nothing is set */
export function combinationParameters({
  adapters,
  combination: given,
}: ParametersShape): CombinationParameters | undefined {
  const densities = adapters.map((adapter) => adapter.density ?? given?.density);
  const known = densities.filter((one) => one !== undefined);
  const parameters = {
    ...(given?.rank === undefined ? {} : { rank: given.rank }),
    // Where one is missing it is said beside it.
    ...(known.length === 0 ? {} : { density: known.length < densities.length ? 1 : known }),
    ...(given?.seed === undefined ? {} : { seed: given.seed }),
    ...(given?.majority_sign === undefined ? {} : { majoritySign: given.majority_sign }),
  };
  return Object.keys(parameters).length === 0 ? undefined : parameters;
}

/** A method has the parameters that it needs, for every adapter, and no others. */
export function refineParameters(recipe: ParametersShape, context: z.RefinementCtx): void {
  const { adapters, combination: given } = recipe;
  const method = given?.method ?? 'linear';
  const own = adapters.findIndex((adapter) => adapter.density !== undefined);
  const missing = adapters.findIndex((adapter) => adapter.density === undefined);
  if (isThinned(method) && given?.density === undefined && own >= 0 && missing >= 0) {
    const message =
      'there is no density for this adapter: give it one, or one for all in combination';
    context.addIssue({ code: 'custom', path: ['adapters', missing], message });
  }
  const parameters = combinationParameters(recipe) ?? {};
  const problem = combinationProblem(method, parameters, adapters.length);
  if (problem === undefined) return;
  const { parameter, message } = problem;
  const isOwn = parameter === 'density' && given?.density === undefined && own >= 0;
  const path = isOwn ? ['adapters', own, 'density'] : ['combination', KEYS[parameter]];
  context.addIssue({ code: 'custom', path, message });
}
