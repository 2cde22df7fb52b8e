/** LoRA on experts whose weights are quantised, one by one and fused. */
import { test } from 'vitest';
import { expectSameOntoDequantized, type Merge } from '../../doubles/merge-onto-dequantized.ts';
import { mergeOntoOf, quantized } from '../../doubles/quantized-bases.ts';
import { Random } from '../../doubles/random.ts';
import {
  expertModulesAdapter,
  fusedExpertsAdapter,
  tinyExperts,
} from '../../doubles/tiny-experts.ts';
import { randomTensor, type TinyModel } from '../../doubles/tiny-model.ts';

const SIZES = { hidden: 64, intermediate: 32, experts: 3 };
const QUANTIZED = { mergeOnto: 'dequantized' } as const;

function withNorm(base: TinyModel): TinyModel {
  base.tensors.push(randomTensor(new Random(3), 'model.norm.weight', 'BF16', [64]));
  base.config['torch_dtype'] = 'bfloat16';
  return base;
}

const MERGES: Readonly<Record<string, Merge>> = {
  'parameters that are fused in the adapter': [{}, () => [fusedExpertsAdapter(SIZES)]],
  'modules of each expert': [{}, () => [expertModulesAdapter(SIZES)]],
};

const KINDS = ['nf4', 'int8', 'gptq', 'awq', 'fp8'] as const;

test.each(KINDS)('experts one by one in %s', async (kind) => {
  const base = quantized(kind, withNorm(tinyExperts(SIZES)));
  await expectSameOntoDequantized(base, mergeOntoOf(kind), MERGES);
});

test('experts fused in MXFP4', async () => {
  const { hidden, intermediate, experts } = { hidden: 64, intermediate: 96, experts: 3 };
  const random = new Random(6);
  const bytes = (count: number, from: number, values: number): Uint8Array =>
    Uint8Array.from({ length: count }, () => from + random.below(values));
  const packed = (name: string, out: number, inputs: number): TinyModel['tensors'] => {
    const grid = [experts, out, inputs / 32];
    const count = (experts * out * inputs) / 32;
    return [
      {
        name: `${name}_blocks`,
        dtype: 'U8',
        shape: [...grid, 16],
        data: bytes(16 * count, 0, 256),
      },
      { name: `${name}_scales`, dtype: 'U8', shape: grid, data: bytes(count, 118, 8) },
    ];
  };
  const stem = 'model.layers.0.mlp.experts';
  const base = withNorm({ ...tinyExperts(), tensors: [] });
  base.config = {
    ...{ model_type: 'gpt_oss', torch_dtype: 'bfloat16' },
    quantization_config: { quant_method: 'mxfp4' },
  };
  base.tensors.push(...packed(`${stem}.gate_up_proj`, 2 * intermediate, hidden));
  base.tensors.push(...packed(`${stem}.down_proj`, hidden, intermediate));
  const make = () => [fusedExpertsAdapter({ hidden, intermediate, experts })];
  await expectSameOntoDequantized(base, QUANTIZED, { fused: [{}, make] });
});
