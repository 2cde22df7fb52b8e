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
    what: 'with a magnitude that is a row, of inputs',
    code: 'adapter.bad-shape',
    names: ['/adapter', '[1, 64]', '[64]'],
    spoil: ({ adapter }) => {
      Object.assign(adapter, doraAdapter());
      alter(adapter, MAGNITUDE, { shape: [1, 64], data: random.floats('F32', 64) });
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
];

describe('an adapter with DoRA', () => {
  test.each(ADAPTERS)('$what', expectRefusal);
});
