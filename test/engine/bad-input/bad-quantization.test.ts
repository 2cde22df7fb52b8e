import { describe, test } from 'vitest';
import { quantizeBase } from '../../doubles/quantized-weight.ts';
import { Random } from '../../doubles/random.ts';
import { alter, type TinyModel } from '../../doubles/tiny-model.ts';
import type { TestTensor } from '../../doubles/write-safetensors.ts';
import { type BadInput, expectRefusal } from './expect-refusal.ts';

const WEIGHT = 'model.layers.1.mlp.up_proj.weight';
const STATE = `${WEIGHT}.quant_state.bitsandbytes__nf4`;
const SCALES = 'model.layers.1.mlp.up_proj.SCB';
const FORMAT = 'model.layers.1.mlp.up_proj.weight_format';

type Kind = Parameters<typeof quantizeBase>[2];

/** A sound quantised base in which something is changed. */
function quantized(change: (base: TinyModel) => void, kind: Kind = 'nf4'): BadInput['spoil'] {
  return ({ base }) => {
    quantizeBase(base, new Random(7), kind);
    change(base);
  };
}

/** Changes one tensor; without a change it is removed. */
function altered(name: string, change?: Partial<TestTensor>, kind?: Kind): BadInput['spoil'] {
  return quantized((base) => alter(base, name, change), kind);
}

function withState(change: (state: Record<string, unknown>) => unknown, kind?: Kind) {
  return quantized((base) => {
    const { data } = base.tensors.find(({ name }) => name === STATE)!;
    const state = JSON.parse(new TextDecoder().decode(data)) as Record<string, unknown>;
    const text = new TextEncoder().encode(JSON.stringify(change(state)));
    alter(base, STATE, { data: text, shape: [text.length] });
  }, kind);
}

const floats = (count: number): Pick<TestTensor, 'dtype' | 'shape' | 'data'> => ({
  ...{ dtype: 'F32', shape: [count], data: new Uint8Array(4 * count) },
});

interface Case {
  readonly what: string;
  readonly names: readonly string[];
  readonly spoil: BadInput['spoil'];
}

const MALFORMED: readonly Case[] = [
  ...['absmax', 'quant_map'].map((part) => ({
    what: `no ${part}`,
    names: [`${WEIGHT}.${part}`, 'is missing'],
    spoil: altered(`${WEIGHT}.${part}`),
  })),
  ...['absmax', 'nested_absmax', 'nested_quant_map'].map((part) => ({
    what: `no ${part} of a double quantisation`,
    names: [`${WEIGHT}.${part}`, 'is missing'],
    spoil: altered(`${WEIGHT}.${part}`, undefined, 'nf4-double'),
  })),
  {
    what: 'no state',
    names: [`"${WEIGHT}`],
    spoil: altered(STATE),
  },
  {
    what: 'companions without a weight',
    names: [STATE, 'has no weight'],
    spoil: altered(WEIGHT),
  },
  {
    what: 'maxima of fewer blocks',
    names: [`${WEIGHT}.absmax`, 'F32 [127]', 'F32 [128]'],
    spoil: altered(`${WEIGHT}.absmax`, floats(127)),
  },
  {
    what: 'plain maxima in a double quantisation',
    names: [`${WEIGHT}.absmax`, 'U8 [128]'],
    spoil: altered(`${WEIGHT}.absmax`, floats(128), 'nf4-double'),
  },
  {
    what: 'a table of another kind',
    names: [`${WEIGHT}.quant_map`, 'nf4'],
    spoil: altered(`${WEIGHT}.quant_map`, floats(16)),
  },
  {
    what: 'nested parts that its state does not speak of',
    names: [`${WEIGHT}.nested_absmax`, 'belongs to no quantised weight'],
    spoil: quantized((base) =>
      base.tensors.unshift({ name: `${WEIGHT}.nested_absmax`, ...floats(1) }),
    ),
  },
  {
    what: 'a packed weight of another size',
    names: [WEIGHT, '4095 bytes', '4096', '[128, 64]'],
    spoil: altered(WEIGHT, { shape: [4095, 1], data: new Uint8Array(4095) }),
  },
  {
    what: 'a state that is not JSON',
    names: [STATE, 'is not JSON'],
    spoil: altered(STATE, { data: Uint8Array.of(0x7b, 0xff), shape: [2] }),
  },
  {
    what: 'a state as large as no state is',
    names: [STATE, '5000 bytes'],
    spoil: altered(STATE, { data: new Uint8Array(5000), shape: [5000] }),
  },
  {
    what: 'a state without a shape',
    names: [STATE, 'shape'],
    spoil: withState(({ shape: _, ...state }) => state),
  },
  {
    what: 'an empty shape',
    names: [STATE, 'shape'],
    spoil: withState((state) => ({ ...state, shape: [0, 64] })),
  },
  ...[0, 63, 8192, '64'].map((blocksize) => ({
    what: `a block size of ${JSON.stringify(blocksize)}`,
    names: [STATE, 'blocksize'],
    spoil: withState((state) => ({ ...state, blocksize })),
  })),
  {
    what: 'an unknown kind of codes',
    names: [STATE, 'quant_type'],
    spoil: withState((state) => ({ ...state, quant_type: 'af4' })),
  },
  {
    what: 'a kind of codes that is not that of the name',
    names: [STATE, 'fp4'],
    spoil: withState((state) => ({ ...state, quant_type: 'fp4' })),
  },
  {
    what: 'a dtype that nothing is merged into',
    names: [STATE, 'dtype'],
    spoil: withState((state) => ({ ...state, dtype: 'float64' })),
  },
  {
    what: 'nested maxima of a dtype that bitsandbytes has not',
    names: [STATE, 'nested_dtype'],
    spoil: withState((state) => ({ ...state, nested_dtype: 'float16' }), 'nf4-double'),
  },
  {
    what: 'a double quantisation without its offset',
    names: [STATE, 'nested_offset'],
    spoil: withState(({ nested_offset: _, ...state }) => state, 'nf4-double'),
  },
  {
    what: 'two states of one weight',
    names: [WEIGHT, 'more than one quant_state'],
    spoil: quantized((base) => {
      const state = base.tensors.find(({ name }) => name === STATE)!;
      const text = new TextDecoder().decode(state.data).replace('nf4', 'fp4');
      const name = STATE.replace('nf4', 'fp4');
      base.tensors.push({ ...state, name, data: new TextEncoder().encode(text) });
    }),
  },
  {
    what: 'int8 weights without SCB',
    names: [FORMAT.replace('_format', ''), 'SCB'],
    spoil: altered(SCALES, undefined, 'int8'),
  },
  {
    what: 'an SCB of fewer rows',
    names: [SCALES, 'F32 [127]', 'F32 [128]'],
    spoil: altered(SCALES, floats(127), 'int8'),
  },
  {
    what: 'an SCB without its weight',
    names: [SCALES, 'has no weight'],
    spoil: altered(WEIGHT, undefined, 'int8'),
  },
  {
    what: 'an order of rows for a GPU',
    names: [FORMAT, 'is 2'],
    spoil: altered(FORMAT, { data: Uint8Array.of(2) }, 'int8'),
  },
  {
    what: 'int8 weights of a model that has no dtype',
    names: ['LLM.int8', 'dtype'],
    spoil: quantized((base) => {
      delete base.config['torch_dtype'];
    }, 'int8'),
  },
];

const dequantized = { mergeOnto: 'dequantized' } as const;

describe('a quantised base with', () => {
  test.each(MALFORMED)('$what', async (bad) => {
    await expectRefusal({ ...bad, code: 'checkpoint.bad-quantization', options: dequantized });
  });
});

describe('which weights are merged onto', () => {
  test.each<BadInput>([
    {
      what: 'is not said, and the base is quantised',
      code: 'checkpoint.quantized-base',
      names: ['14 weights', 'QLoRA', '--merge-onto', '16-bit repository'],
      spoil: quantized(() => undefined),
    },
    {
      what: 'are the original ones, and the base is quantised',
      code: 'checkpoint.quantized-base',
      names: ['14 weights', 'dequantized', 'as the base instead'],
      spoil: quantized(() => undefined, 'int8'),
      options: { mergeOnto: 'original' },
    },
    {
      what: 'are dequantised ones, and the base is not quantised',
      code: 'plan.option-invalid',
      names: ['merge_onto', 'not quantised'],
      spoil: () => undefined,
      options: dequantized,
    },
    {
      what: 'are those of a Conv1D, which are stored turned round',
      code: 'checkpoint.quantized-base',
      names: ['c_fc', 'Conv1D', '16-bit'],
      spoil: quantized((base) => {
        base.config['model_type'] = 'gpt2';
        base.tensors = base.tensors.map((tensor) => ({
          ...tensor,
          name: tensor.name.replace('mlp.up_proj', 'mlp.c_fc'),
        }));
      }),
      options: dequantized,
    },
  ])('$what', expectRefusal);
});
