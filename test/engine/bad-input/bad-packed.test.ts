/** GPTQ, AWQ, FP8 and MXFP4 bases that are not what they should be, or nothing that is read. */
import { describe, test } from 'vitest';
import { groupIndices, type PackedKind, packBase } from '../../doubles/packed-base.ts';
import { Random } from '../../doubles/random.ts';
import { alter, type TinyModel } from '../../doubles/tiny-model.ts';
import type { TestTensor } from '../../doubles/write-safetensors.ts';
import { type BadInput, expectRefusal } from './expect-refusal.ts';

const STEM = 'model.layers.1.mlp.up_proj';
const EXPERTS = 'model.layers.1.mlp.experts.down_proj';

function packed(kind: PackedKind, change: (base: TinyModel) => void): BadInput['spoil'] {
  return ({ base }) => {
    packBase(base, new Random(9), kind);
    change(base);
  };
}

function altered(kind: PackedKind, name: string, change?: Partial<TestTensor>) {
  return packed(kind, (base) => alter(base, name, change));
}

function configured(kind: PackedKind, settings: object): BadInput['spoil'] {
  return packed(kind, ({ config }) => {
    config['quantization_config'] = { ...(config['quantization_config'] as object), ...settings };
  });
}

/** Other group indices of the 64 inputs of up_proj. */
function groups(change: (group: number, input: number) => number): Partial<TestTensor> {
  const indices = new Int32Array(groupIndices(64).buffer).map(change);
  return { data: new Uint8Array(indices.buffer) };
}

interface Case {
  readonly what: string;
  readonly names: readonly string[];
  readonly spoil: BadInput['spoil'];
}

const words = (...shape: number[]): Partial<TestTensor> => ({
  ...{ dtype: 'I32', shape, data: new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)) },
});

const MALFORMED: readonly Case[] = [
  ...['qzeros', 'scales', 'g_idx'].map((part) => ({
    what: `GPTQ without ${part}, whose settings do not say that there is none`,
    names: [`"${STEM}.${part}" is missing`],
    spoil: packed('gptq', (base) => {
      delete (base.config['quantization_config'] as { desc_act?: boolean }).desc_act;
      alter(base, `${STEM}.${part}`);
    }),
  })),
  ...['qzeros', 'scales'].map((part) => ({
    what: `AWQ without ${part}`,
    names: [`"${STEM}.${part}" is missing`],
    spoil: altered('awq', `${STEM}.${part}`),
  })),
  ...(['gptq', 'awq'] as const).map((kind) => ({
    what: `${kind} without the packed weight`,
    names: [STEM, 'belongs to no quantised weight'],
    spoil: altered(kind, `${STEM}.qweight`),
  })),
  {
    what: 'GPTQ with groups of another size than its settings say',
    names: [`${STEM.replace('1.mlp.up', '0.self_attn.q')}.scales`, 'F16 [2, 64]', '[1, 64]'],
    spoil: configured('gptq', { group_size: 64 }),
  },
  {
    what: 'GPTQ with the zero points of fewer columns',
    names: [`${STEM}.qzeros`, 'I32 [2, 15]', 'I32 [2, 16]'],
    spoil: altered('gptq', `${STEM}.qzeros`, words(2, 15)),
  },
  {
    what: 'GPTQ with packed weights of another dtype',
    names: [`${STEM}.qweight`, 'U32 [8, 128]', 'I32'],
    spoil: altered('gptq', `${STEM}.qweight`, { dtype: 'U32' }),
  },
  {
    what: 'GPTQ with packed weights of three dimensions',
    names: [`${STEM}.qweight`, '[8, 2, 64]', 'no matrix'],
    spoil: altered('gptq', `${STEM}.qweight`, { shape: [8, 2, 64] }),
  },
  {
    what: 'GPTQ with a group that is not there',
    names: [`${STEM}.g_idx`, 'group 2 of input 63', 'there are 2'],
    spoil: altered(
      'gptq',
      `${STEM}.g_idx`,
      groups((group, input) => (input === 63 ? 2 : group)),
    ),
  },
  {
    what: 'GPTQ with a negative group',
    names: [`${STEM}.g_idx`, 'group -1 of input 5'],
    spoil: altered(
      'gptq',
      `${STEM}.g_idx`,
      groups((group, input) => (input === 5 ? -1 : group)),
    ),
  },
  {
    what: 'GPTQ with an order of inputs, whose settings say that there is none',
    names: [`${STEM}.g_idx`, 'desc_act'],
    spoil: altered(
      'gptq',
      `${STEM}.g_idx`,
      groups((_, input) => input % 2),
    ),
  },
  {
    what: 'GPTQ with group indices of zeros, of which readers think differently',
    names: [`${STEM}.g_idx`, 'gives group 0 64 inputs and not 32'],
    spoil: packed('gptq', (base) => {
      (base.config['quantization_config'] as { desc_act?: boolean }).desc_act = true;
      alter(
        base,
        `${STEM}.g_idx`,
        groups(() => 0),
      );
    }),
  },
  {
    what: 'GPTQ without a group size',
    names: ['base/config.json', 'group_size'],
    spoil: configured('gptq', { group_size: undefined }),
  },
  {
    what: 'a weight both quantised and not',
    names: [`${STEM}.weight`, 'quantised'],
    spoil: packed('awq', (base) => {
      const data = new Uint8Array(2 * 128 * 64);
      base.tensors.unshift({ name: `${STEM}.weight`, dtype: 'BF16', shape: [128, 64], data });
    }),
  },
  {
    what: 'AWQ with scales of an activation, which 16-bit models do not have',
    names: ['act.scales', 'belongs to no quantised weight'],
    spoil: packed('awq', (base) => {
      const data = new Uint8Array(256);
      base.tensors.push({
        name: 'model.layers.0.mlp.act.scales',
        dtype: 'F16',
        shape: [128],
        data,
      });
    }),
  },
  {
    what: 'AWQ with groups that do not fill its inputs',
    names: ['64 inputs in groups of 48'],
    spoil: configured('awq', { group_size: 48 }),
  },
  {
    what: 'FP8 without its scales',
    names: [`"${STEM}.weight" belongs to no quantised weight`],
    spoil: altered('fp8', `${STEM}.weight_scale_inv`),
  },
  {
    what: 'FP8 scales without a weight',
    names: [`${STEM}.weight_scale_inv`, 'has no weight'],
    spoil: altered('fp8', `${STEM}.weight`),
  },
  {
    what: 'FP8 with blocks of another size than its settings say',
    names: ['weight_scale_inv', 'F32 [2, 2]', '[1, 2]'],
    spoil: configured('fp8', { weight_block_size: [64, 32] }),
  },
  {
    what: 'FP8 with exponents for scales',
    names: [`${STEM}.weight_scale_inv`, 'F8_E8M0'],
    spoil: altered('fp8', `${STEM}.weight_scale_inv`, {
      ...{ dtype: 'F8_E8M0', shape: [4, 2], data: new Uint8Array(8) },
    }),
  },
  {
    what: 'FP8 of the other kind',
    names: [`${STEM}.weight`, 'F8_E5M2', 'F8_E4M3'],
    spoil: altered('fp8', `${STEM}.weight`, { dtype: 'F8_E5M2' }),
  },
  {
    what: 'FP8 of a model that has no dtype',
    names: ['FP8', 'dtype'],
    spoil: packed('fp8', (base) => {
      delete base.config['torch_dtype'];
    }),
  },
  {
    what: 'MXFP4 without its scales',
    names: [`"${EXPERTS}_scales" is missing`],
    spoil: altered('mxfp4', `${EXPERTS}_scales`),
  },
  {
    what: 'MXFP4 scales without blocks',
    names: [`"${EXPERTS}_scales" belongs to no quantised weight`],
    spoil: altered('mxfp4', `${EXPERTS}_blocks`),
  },
  {
    what: 'MXFP4 in blocks of another size',
    names: [`${EXPERTS}_blocks`, '[2, 64, 6, 8]', 'in / 32'],
    spoil: altered('mxfp4', `${EXPERTS}_blocks`, { shape: [2, 64, 6, 8] }),
  },
  {
    what: 'MXFP4 with fewer scales',
    names: [`${EXPERTS}_scales`, 'U8 [2, 64, 2]', 'U8 [2, 64, 3]'],
    spoil: altered('mxfp4', `${EXPERTS}_scales`, {
      ...{ shape: [2, 64, 2], data: new Uint8Array(256) },
    }),
  },
];

const REFUSED: readonly Case[] = [
  ...[2, 3].map((bits) => ({
    what: `GPTQ with ${bits} bits`,
    names: ['GPTQ', `${bits} bits`, '16-bit'],
    spoil: configured('gptq', { bits }),
  })),
  {
    what: 'GPTQ in a layout for one kernel',
    names: ['GPTQ', '"marlin"'],
    spoil: configured('gptq', { checkpoint_format: 'marlin' }),
  },
  {
    what: 'GPTQ in a layout for one kernel, as it was marked once',
    names: ['GPTQ', 'format'],
    spoil: configured('gptq', { is_marlin_format: true }),
  },
  {
    what: 'GPTQ packed in other words',
    names: ['GPTQ', 'int16'],
    spoil: configured('gptq', { pack_dtype: 'int16' }),
  },
  {
    what: 'GPTQ with settings of their own for some modules',
    names: ['GPTQ', 'dynamic'],
    spoil: configured('gptq', { dynamic: { 'layers.0': { bits: 8 } } }),
  },
  {
    what: 'GPTQ with a zero point that readers do not agree on',
    names: [`${STEM}.qzeros`, 'zero point', 'differently'],
    spoil: packed('gptq', (base) => {
      const { data } = base.tensors.find(({ name }) => name === `${STEM}.qzeros`)!;
      alter(base, `${STEM}.qzeros`, { data: data.with(3, 0xf0) });
    }),
  },
  ...['gemv', 'GEMV_fast', 'marlin', 'exllama'].map((version) => ({
    what: `AWQ in the layout ${version}`,
    names: ['AWQ', version.toLowerCase()],
    spoil: configured('awq', { version }),
  })),
  {
    what: 'AWQ with 8 bits',
    names: ['AWQ', '8 bits'],
    spoil: configured('awq', { bits: 8 }),
  },
  {
    what: 'AWQ without zero points',
    names: ['AWQ', 'zero points'],
    spoil: configured('awq', { zero_point: false }),
  },
  ...(['gptq', 'awq', 'fp8'] as const).map((kind) => ({
    what: `the weights of a Conv1D (${kind})`,
    names: ['c_fc', 'Conv1D'],
    spoil: packed(kind, (base) => {
      base.config['model_type'] = 'gpt2';
      base.tensors = base.tensors.map((tensor) => ({
        ...tensor,
        name: tensor.name.replace('mlp.up_proj', 'mlp.c_fc'),
      }));
    }),
  })),
];

const options = { mergeOnto: 'dequantized' } as const;

describe('a base that holds', () => {
  test.each(MALFORMED)('$what', async (bad) => {
    await expectRefusal({ ...bad, code: 'checkpoint.bad-quantization', options });
  });
});

describe('a base that is', () => {
  test.each(REFUSED)('$what', async (bad) => {
    await expectRefusal({ ...bad, code: 'checkpoint.quantized-base', options });
  });

  test.each(['gptq', 'awq', 'fp8', 'mxfp4'] as const)(
    '%s, without a word on what is merged onto',
    async (kind) => {
      await expectRefusal({
        what: kind,
        code: 'checkpoint.quantized-base',
        names: ['--merge-onto', 'dequantized', '16-bit repository'],
        spoil: packed(kind, () => undefined),
      });
    },
  );

  test('FP8 with codes that are not a number', async () => {
    await expectRefusal({
      what: 'NaN',
      code: 'merge.non-finite',
      names: [`"${STEM}.weight"`],
      spoil: packed('fp8', (base) => {
        const { data } = base.tensors.find(({ name }) => name === `${STEM}.weight`)!;
        alter(base, `${STEM}.weight`, { data: data.with(77, 0x7f) });
      }),
      options,
    });
  });
});
