import type { ByteSource } from '../byte-source.ts';
import { assert } from '../errors.ts';
import type { ModelFiles } from '../model-files.ts';
import type { ReadTensor } from '../verify/factor-rows.ts';

/** The inputs of a merge by their ids, wherever they are. */
export type InputModels = Readonly<Record<string, ModelFiles>>;

/** Reads tensors of the inputs of a plan; each of their files is opened once. */
export class TensorReader {
  readonly #models: InputModels;
  readonly #signal: AbortSignal | undefined;
  readonly #sources = new Map<string, Promise<ByteSource>>();

  /** @param signal checked before each read */
  constructor(models: InputModels, signal?: AbortSignal) {
    this.#models = models;
    this.#signal = signal;
  }

  readonly read: ReadTensor = async ({ input, file, offset: begin }, offset, length) => {
    this.#signal?.throwIfAborted();
    const key = `${input}/${file}`;
    let source = this.#sources.get(key);
    if (source === undefined) {
      const model = this.#models[input];
      assert(model !== undefined, `a plan is measured without its input "${input}"`);
      source = model.open(file);
      this.#sources.set(key, source);
    }
    return (await source).read(begin + offset, length);
  };

  async close(): Promise<void> {
    for (const source of await Promise.allSettled(this.#sources.values())) {
      if (source.status === 'fulfilled') await source.value.close();
    }
  }
}
