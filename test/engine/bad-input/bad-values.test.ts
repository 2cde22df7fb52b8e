import { describe, test } from 'vitest';
import { Random } from '../../doubles/random.ts';
import { alter, randomTensor } from '../../doubles/tiny-model.ts';
import { type BadInput, expectRefusal } from './expect-refusal.ts';

const A = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight';
const B = 'base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight';
const random = new Random(4);

function withValue(name: string, byteOffset: number, bytes: readonly number[]): BadInput['spoil'] {
  return ({ adapter }) => {
    adapter.tensors.find((each) => each.name === name)?.data.set(bytes, byteOffset);
  };
}

const VALUES: readonly BadInput[] = [
  {
    what: 'a NaN as its last value',
    code: 'adapter.non-finite',
    names: ['adapter/adapter_model.safetensors', `"${B}"`],
    spoil: withValue(B, 64 * 4 * 4 - 4, [0, 0, 0xc0, 0x7f]),
  },
  {
    what: 'a negative infinity',
    code: 'adapter.non-finite',
    names: ['adapter/adapter_model.safetensors', `"${A}"`],
    spoil: withValue(A, 128, [0, 0, 0x80, 0xff]),
  },
  {
    what: 'an infinity in BF16',
    code: 'adapter.non-finite',
    names: [`"${A}"`],
    spoil: ({ adapter }) => {
      const data = random.floats('BF16', 256);
      data.set([0x80, 0x7f], 100);
      alter(adapter, A, { dtype: 'BF16', data });
    },
  },
  {
    what: 'a NaN in F16',
    code: 'adapter.non-finite',
    names: [`"${A}"`],
    spoil: ({ adapter }) => {
      const data = random.floats('F16', 256);
      data.set([0x01, 0x7c], 100);
      alter(adapter, A, { dtype: 'F16', data });
    },
  },
  {
    what: 'a NaN in a whole tensor',
    code: 'adapter.non-finite',
    names: ['"base_model.model.lm_head.weight"'],
    spoil: ({ adapter }) => {
      const head = randomTensor(random, 'base_model.model.lm_head.weight', 'F32', [100, 64]);
      head.data.set([0, 0, 0xc0, 0x7f], 400);
      adapter.tensors.push(head);
    },
  },
  {
    what: 'whole numbers',
    code: 'adapter.bad-dtype',
    names: ['adapter/adapter_model.safetensors', `"${A}"`, 'I32'],
    spoil: ({ adapter }) => alter(adapter, A, { dtype: 'I32' }),
  },
];

const RESULTS: readonly BadInput[] = [
  {
    what: 'a result past the end of float16',
    code: 'merge.non-finite',
    names: ['"model.layers.0.self_attn.q_proj.weight"', '65504', 'bfloat16'],
    options: { dtype: 'float16' },
    spoil: ({ adapter }) => {
      // 1e30 is a fine float32 and bfloat16.
      for (const each of adapter.tensors) {
        const values = new Float32Array(each.data.length / 4).fill(1e15);
        each.data.set(new Uint8Array(values.buffer));
      }
    },
  },
  {
    what: 'a base that holds an infinity already',
    code: 'merge.non-finite',
    names: ['"model.layers.1.self_attn.v_proj.weight"', 'base'],
    spoil: ({ base }) => {
      const name = 'model.layers.1.self_attn.v_proj.weight';
      base.tensors.find((each) => each.name === name)?.data.set([0x80, 0x7f], 50);
    },
  },
];

describe('an adapter that has', () => {
  test.each(VALUES)('$what', expectRefusal);
});

describe('a merge that would give', () => {
  test.each(RESULTS)('$what', expectRefusal);
});

describe('options', () => {
  test.each([0, -1, 1.5, Number.NaN])('a largest shard of %d bytes', async (shardBytesMax) => {
    await expectRefusal({
      what: 'a bad size',
      code: 'plan.option-invalid',
      names: [String(shardBytesMax)],
      options: { shardBytesMax },
      spoil: () => undefined,
    });
  });
});
