import { Random } from './random.ts';
import {
  randomTensor,
  type TinyAdapterOptions,
  type TinyModel,
  tinyAdapter,
} from './tiny-model.ts';

/** A tiny adapter with DoRA: every pair has a magnitude, of lengths below 1/8. */
export function doraAdapter(
  options: TinyAdapterOptions = {},
  suffix = 'lora_magnitude_vector',
): TinyModel {
  const adapter = tinyAdapter(options);
  const random = new Random(21);
  adapter.config['use_dora'] = true;
  for (const { name, shape } of adapter.tensors.filter((each) => each.name.includes('lora_B'))) {
    const vector = name.replace('lora_B.weight', suffix);
    adapter.tensors.push(randomTensor(random, vector, options.dtype ?? 'F32', [shape[0] ?? 0]));
  }
  return adapter;
}
