import { basename } from 'node:path';
import type { Provenance } from '../engine/seal.ts';
import type { ReleaseProvenance } from '../report/release-facts.ts';
import type { ResolvedModel } from '../sources/model-input.ts';
import { resolvedAdapters } from './resolved-adapters.ts';
import type { ReleaseContext, ResolvedInputs } from './types.ts';

/**
 * How a model is named outside this machine: its hub reference without the revision (the commit
 * stands beside it), or the last component of its directory, whose path would mean nothing.
 */
export function publicName(model: ResolvedModel): string {
  if (model.kind === 'directory') return basename(model.path);
  if (model.kind === 'remote') return model.model.uri;
  return `hf://${model.repo}${model.folder === '' ? '' : `/${model.folder}`}`;
}

type InputContext = ReleaseContext & { readonly inputs: ResolvedInputs };

/**
 * What the manifest of a merge says of its inputs. A merge outlives the release it was made for:
 * the next release of the same inputs finds it, so nothing of the recipe may be in it.
 */
export function mergeProvenance({ recipe, inputs }: InputContext): Provenance {
  const describe = (model: ResolvedModel) => ({
    model: publicName(model),
    ...(model.kind === 'hub' ? { commit: model.commit } : {}),
    ...(model.kind === 'remote' ? { pin: model.model.pin } : {}),
  });
  const adapters = resolvedAdapters({ recipe }, inputs);
  const described = adapters.map(({ id, resolved }) => [id, describe(resolved)] as const);
  return { inputs: { base: describe(inputs.base), ...Object.fromEntries(described) } };
}

/** What a release says of its recipe and inputs, beyond the manifest of its merge. */
export function releaseProvenance(context: InputContext): ReleaseProvenance {
  const { recipe, recipeDigest } = context;
  const inputs: Record<string, Provenance['inputs'][string]> = {
    ...mergeProvenance(context).inputs,
  };
  for (const { id, trainingRun } of recipe.adapters) {
    if (trainingRun !== undefined) inputs[id] = { ...(inputs[id] ?? { model: id }), trainingRun };
  }
  return {
    recipe: { name: recipe.name, version: recipe.version, digest: recipeDigest },
    inputs,
  };
}
