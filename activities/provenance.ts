import { basename } from 'node:path';
import type { Provenance } from '../engine/seal.ts';
import type { ResolvedModel } from '../sources/model-input.ts';
import type { ReleaseContext, ResolvedInputs } from './types.ts';

/**
 * How a model is named outside this machine: its hub reference without the revision (the commit
 * stands beside it), or the last component of its directory, whose path would mean nothing.
 */
export function publicName(model: ResolvedModel): string {
  if (model.kind === 'directory') return basename(model.path);
  return `hf://${model.repo}${model.folder === '' ? '' : `/${model.folder}`}`;
}

/** What a manifest says of the recipe and the inputs beyond the plan. */
export function provenanceOf(
  context: ReleaseContext & { readonly inputs: ResolvedInputs },
): Provenance {
  const { recipe, recipeDigest, inputs } = context;
  const [adapter] = recipe.adapters;
  const commitOf = (model: ResolvedModel) => (model.kind === 'hub' ? { commit: model.commit } : {});
  return {
    recipe: { name: recipe.name, version: recipe.version, digest: recipeDigest },
    inputs: {
      base: { model: publicName(inputs.base), ...commitOf(inputs.base) },
      [adapter.id]: {
        model: publicName(inputs.adapter),
        ...commitOf(inputs.adapter),
        ...(adapter.trainingRun === undefined ? {} : { trainingRun: adapter.trainingRun }),
      },
    },
  };
}
