import type { Recipe } from '../../config/recipe.ts';

/** Methods that, of one adapter with weight 1, add all of its delta and nothing else. */
const PLAIN_METHODS: readonly string[] = ['linear', 'cat', 'sequential'];

/**
 * Whether the merged checkpoint is to compute what the adapter on its base computes, but for
 * rounding. It is not where the recipe asks for something else: several adapters, a weight, a method
 * that cuts or thins out, other weights to merge onto than the adapter is run on. Nor is it where the
 * base rounds what it multiplies too (LLM.int8), which the merged checkpoint does not.
 *
 * @param baseConfig the base's `config.json`
 */
export function isMergeExact(
  { adapters, combination, merge }: Pick<Recipe, 'adapters' | 'combination' | 'merge'>,
  baseConfig: { readonly quantization_config?: { readonly load_in_8bit?: unknown } } = {},
): boolean {
  return (
    baseConfig.quantization_config?.load_in_8bit !== true &&
    adapters.length === 1 &&
    adapters[0].weight === 1 &&
    PLAIN_METHODS.includes(combination.method) &&
    merge.mergeOnto !== 'simulated_nf4'
  );
}
