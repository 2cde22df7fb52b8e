/** A model that takes seconds to merge, so that tests can cut into the middle of it. */

import { Random } from '../doubles/random.ts';
import type { TinyModel } from '../doubles/tiny-model.ts';
import type { TestTensor } from '../doubles/write-safetensors.ts';

export interface HeavyModelOptions {
  /** Each has two square matrices. */
  readonly layers: number;
  /** Files of the base; divides `layers`. */
  readonly shards: number;
  /** Rows and columns of a matrix. */
  readonly extent: number;
  /** The work of a merge grows with it, its bytes hardly do. */
  readonly rank: number;
}

export interface HeavyModel {
  readonly base: TinyModel;
  readonly adapter: TinyModel;
}

/** A base of `4 * layers * extent²` bytes, and an adapter for all of it. */
export function heavyModel({ layers, shards, extent, rank }: HeavyModelOptions): HeavyModel {
  const random = new Random(7);
  const base: TestTensor[] = [];
  const adapter: TestTensor[] = [];
  const tensor = (name: string, ...shape: [number, number]): TestTensor => {
    return { name, dtype: 'BF16', shape, data: manyFloats(random, shape[0] * shape[1]) };
  };
  for (let layer = 0; layer < layers; layer++) {
    for (const module of ['q_proj', 'o_proj']) {
      const stem = `model.layers.${layer}.self_attn.${module}`;
      base.push(tensor(`${stem}.weight`, extent, extent));
      adapter.push(tensor(`base_model.model.${stem}.lora_A.weight`, rank, extent));
      adapter.push(tensor(`base_model.model.${stem}.lora_B.weight`, extent, rank));
    }
  }
  const config = {
    peft_type: 'LORA',
    r: rank,
    lora_alpha: 1,
    target_modules: ['q_proj', 'o_proj'],
    bias: 'none',
  };
  return {
    base: { config: { model_type: 'llama' }, tensors: base, files: {}, shards },
    adapter: { config, tensors: adapter, files: {}, shards: 1 },
  };
}

/** Drawing every value would take longer than the merge: blocks of them come again, displaced. */
function manyFloats(random: Random, count: number): Uint8Array {
  const block = random.floats('BF16', 65_537);
  const bytes = new Uint8Array(2 * count);
  for (let offset = 0; offset < bytes.length; offset += block.length) {
    bytes.set(block.subarray(0, bytes.length - offset), offset);
  }
  return bytes;
}
