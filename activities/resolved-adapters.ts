import type { Recipe, RecipeAdapter } from '../config/recipe.ts';
import { digestOf } from '../engine/canonical-json.ts';
import { assert } from '../engine/errors.ts';
import type { NamedAdapter } from '../sources/adapter-lineage.ts';
import { identityOf, type ResolvedModel } from '../sources/model-input.ts';
import type { ReleaseContext, ResolvedInputs } from './types.ts';

export interface ResolvedAdapter extends RecipeAdapter {
  readonly resolved: ResolvedModel;
}

/** The adapters of a recipe and what each is pinned to, in the order of the recipe. */
export function resolvedAdapters(
  { recipe }: Pick<ReleaseContext, 'recipe'>,
  { adapter, otherAdapters = [] }: Pick<ResolvedInputs, 'adapter' | 'otherAdapters'>,
): readonly ResolvedAdapter[] {
  const models = [adapter, ...otherAdapters];
  return recipe.adapters.map((wanted, index) => {
    const resolved = models[index];
    assert(resolved !== undefined, `adapter "${wanted.id}" is not resolved`);
    return { ...wanted, resolved };
  });
}

/**
 * The same with where they are on this machine.
 * @param directories in the order of the recipe
 */
export function namedAdapters(
  context: Pick<ReleaseContext, 'recipe'>,
  inputs: Pick<ResolvedInputs, 'adapter' | 'otherAdapters'>,
  directories: readonly string[],
): readonly NamedAdapter[] {
  return resolvedAdapters(context, inputs).map(({ id, model, resolved }, index) => {
    const directory = directories[index];
    assert(directory !== undefined, `adapter "${id}" is nowhere`);
    return { id, model, located: resolved, directory };
  });
}

/** Methods that are told apart by nothing but the adapters and their weights. */
const SUMS: readonly string[] = ['linear', 'cat', 'sequential'];

/**
 * What the name of an artefact says of its adapters; of several, or where a method has parameters, a
 * digest of what they are and, where they are not just added up, how.
 */
export function nameOfAdapters(
  adapters: readonly ResolvedAdapter[],
  combination: Recipe['combination'],
): {
  readonly adapter: string;
  readonly adapterVersion?: string | undefined;
  readonly adapterDigest: string;
} {
  const [first, ...others] = adapters;
  assert(first !== undefined, 'a release without adapters');
  const hasParameters = combination.parameters !== undefined;
  if (others.length === 0 && !hasParameters) {
    const { id, version, resolved } = first;
    return { adapter: id, adapterVersion: version, adapterDigest: identityOf(resolved) };
  }
  const described = adapters.map(({ id, weight, resolved }) => ({
    id,
    weight,
    identity: identityOf(resolved),
  }));
  const isSum = !hasParameters && SUMS.includes(combination.method);
  return {
    adapter: adapters.map(({ id }) => id).join('-'),
    adapterDigest: digestOf(isSum ? described : [...described, combination]),
  };
}
