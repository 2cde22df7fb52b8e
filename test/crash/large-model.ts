import { join } from 'node:path';
import { type Directories, writeFiles } from '../doubles/merge-directories.ts';
import { Random } from '../doubles/random.ts';
import { adapterFiles, baseFiles, randomTensor, type TinyModel } from '../doubles/tiny-model.ts';
import type { TestTensor } from '../doubles/write-safetensors.ts';

const ROWS = 4096;
const COLUMNS = 1024;
const TENSOR_BYTES = 2 * ROWS * COLUMNS;
const RANK = 8;

/**
 * Writes a base and an adapter for all of its weights, quickly: every tensor has the same 8 MiB of
 * random values, each from another place on.
 */
export async function writeLargeModel(
  root: string,
  layout: { readonly tensors: number; readonly shards: number },
): Promise<Directories> {
  const random = new Random(6);
  const values = random.floats('BF16', 2 * ROWS * COLUMNS);
  const base: TinyModel = {
    config: { model_type: 'llama', tie_word_embeddings: false },
    tensors: [],
    files: {},
    shards: layout.shards,
  };
  const adapterTensors: TestTensor[] = [];
  for (let index = 0; index < layout.tensors; index++) {
    const module = `model.layers.${index}.mlp.up_proj`;
    const begin = 2 * (index * 65_537);
    const data = values.subarray(begin, begin + TENSOR_BYTES);
    base.tensors.push({ name: `${module}.weight`, dtype: 'BF16', shape: [ROWS, COLUMNS], data });
    const stem = `base_model.model.${module}`;
    adapterTensors.push(
      randomTensor(random, `${stem}.lora_A.weight`, 'F32', [RANK, COLUMNS]),
      randomTensor(random, `${stem}.lora_B.weight`, 'F32', [ROWS, RANK]),
    );
  }
  const config = { peft_type: 'LORA', r: RANK, lora_alpha: 16, target_modules: ['up_proj'] };
  const adapter: TinyModel = { config, tensors: adapterTensors, files: {}, shards: 1 };
  const directories = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  await writeFiles(directories.base, baseFiles(base));
  await writeFiles(directories.adapter, adapterFiles(adapter));
  return directories;
}
