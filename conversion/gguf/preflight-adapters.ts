import { assert } from '../../engine/errors.ts';
import type { GgufAdapterStep } from '../conversion-step.ts';
import type { ModelFacts } from '../convert-options.ts';
import { adapterUnsupported, readGgufAdapter } from './gguf-adapter.ts';

/**
 * @param adapters directories, by id
 * @throws WeldlineError `convert.adapter-unsupported`
 */
export async function preflightAdapters(
  steps: readonly GgufAdapterStep[],
  adapters: Readonly<Record<string, string>>,
  { config }: ModelFacts,
): Promise<void> {
  for (const { adapter } of steps) {
    const directory = adapters[adapter];
    assert(directory !== undefined, `a step converts the adapter ${adapter}, which is not given`);
    const { modules } = await readGgufAdapter(adapter, directory);
    const isTied = config['tie_word_embeddings'] === true;
    if (isTied && modules.some((module) => /(^|\.)lm_head$/.test(module))) {
      throw adapterUnsupported(
        adapter,
        'is on lm_head, which this model shares with its embedding',
      );
    }
  }
}
