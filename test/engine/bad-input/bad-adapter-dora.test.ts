import { describe, test } from 'vitest';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { Random } from '../../doubles/random.ts';
import { alter, randomTensor } from '../../doubles/tiny-model.ts';
import { type BadInput, expectRefusal } from './expect-refusal.ts';

const MODULE = 'model.layers.0.self_attn.q_proj';
const MAGNITUDE = `base_model.model.${MODULE}.lora_magnitude_vector`;
const random = new Random(5);

const ADAPTERS: readonly BadInput[] = [
  {
    what: 'without one of its magnitudes',
    code: 'adapter.half-pair',
    names: ['/adapter', `"${MODULE}"`, 'no lora_magnitude_vector', 'use_dora: true'],
    spoil: ({ adapter }) => {
      Object.assign(adapter, doraAdapter());
      alter(adapter, MAGNITUDE);
    },
  },
  {
    what: 'that its configuration does not speak of',
    code: 'adapter.half-pair',
    names: ['/adapter', `"${MODULE}"`, 'a lora_magnitude_vector', 'use_dora: false'],
    spoil: ({ adapter }) => {
      Object.assign(adapter, doraAdapter());
      adapter.config['use_dora'] = false;
    },
  },
  {
    what: 'with a magnitude for each input',
    code: 'adapter.bad-shape',
    names: ['/adapter', '[32]', '[64]'],
    spoil: ({ adapter }) => {
      Object.assign(adapter, doraAdapter());
      alter(adapter, MAGNITUDE, { shape: [32], data: random.floats('F32', 32) });
    },
  },
  {
    what: 'with a magnitude in two spellings',
    code: 'adapter.duplicate-key',
    names: [`${MAGNITUDE}.weight`],
    spoil: ({ adapter }) => {
      Object.assign(adapter, doraAdapter());
      adapter.tensors.push(randomTensor(random, `${MAGNITUDE}.weight`, 'F32', [64]));
    },
  },
  {
    what: 'on layers that the base stores the other way round',
    code: 'adapter.unsupported-feature',
    names: ['/adapter', 'DoRA', 'c_attn', '[in, out]'],
    spoil: ({ base, adapter }) => {
      Object.assign(adapter, doraAdapter({ targets: ['self_attn.q_proj'] }));
      base.config['model_type'] = 'gpt2';
      adapter.config['target_modules'] = ['c_attn'];
      for (const model of [base, adapter]) {
        model.tensors = model.tensors.map((each) => ({
          ...each,
          name: each.name.replace('self_attn.q_proj', 'attn.c_attn'),
        }));
      }
    },
  },
  {
    what: 'on an embedding',
    code: 'adapter.unsupported-feature',
    names: ['/adapter', '"model.embed_tokens"', 'DoRA on an embedding'],
    spoil: ({ adapter }) => {
      Object.assign(adapter, doraAdapter());
      const stem = 'base_model.model.model.embed_tokens.lora_';
      adapter.tensors.push(
        randomTensor(random, `${stem}embedding_A`, 'F32', [4, 100]),
        randomTensor(random, `${stem}embedding_B`, 'F32', [64, 4]),
        randomTensor(random, `${stem}magnitude_vector`, 'F32', [64]),
      );
    },
  },
];

describe('an adapter with DoRA', () => {
  test.each(ADAPTERS)('$what', expectRefusal);
});
