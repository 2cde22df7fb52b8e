import { recognizeFormat } from '../engine/adapters/adapter-format.ts';
import { assert, WeldlineError } from '../engine/errors.ts';
import type { ModelFiles } from '../engine/model-files.ts';
import type { CandidateStep } from './candidate.ts';

const FORMAT_NAMES = { mlx: "MLX's", kohya: "kohya's" } as const;

/**
 * Refuses to run adapters unmerged that PEFT does not load. weldline merges them, but what is merged
 * is compared with the adapter on its base, and that it could not be would come out after the merge.
 *
 * @param models files of the adapters, by their ids
 * @throws WeldlineError `evaluate.adapter-unsupported`; what `recognizeFormat` throws
 */
export async function requirePeftAdapters(
  candidates: readonly CandidateStep[],
  models: Readonly<Record<string, ModelFiles>>,
): Promise<void> {
  for (const { id: candidate, kind, runner } of candidates) {
    if (kind !== 'adapter' || runner !== 'transformers') continue;
    const id = candidate.slice('adapter:'.length);
    const files = models[id];
    assert(files !== undefined, `the adapter ${id} has no files`);
    const { format } = await recognizeFormat(files);
    if (format === 'peft' || format === 'peft-pickle') continue;
    throw new WeldlineError(
      'evaluate.adapter-unsupported',
      `The adapter ${id} is in ${FORMAT_NAMES[format]} format, which PEFT does not run, so there would be ` +
        'nothing to compare the merged model with. Serve it on its base and name it under ' +
        `evaluate.endpoint.models ("${candidate}": …), save it in PEFT's format, or leave evaluate out.`,
    );
  }
}
