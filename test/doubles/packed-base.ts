/** Bases of other quantisations than bitsandbytes', of random codes. */
import type { Random } from './random.ts';
import { alter, type TinyModel } from './tiny-model.ts';
import type { TestTensor } from './write-safetensors.ts';

export type PackedKind = 'gptq' | 'awq' | 'fp8' | 'mxfp4';

const GROUP = 32;

const SETTINGS: Readonly<Record<PackedKind, object>> = {
  gptq: { quant_method: 'gptq', bits: 4, group_size: GROUP, desc_act: false, sym: false },
  awq: { quant_method: 'awq', bits: 4, group_size: GROUP, zero_point: true, version: 'gemm' },
  fp8: { quant_method: 'fp8', weight_block_size: [GROUP, GROUP] },
  mxfp4: { quant_method: 'mxfp4' },
};

function bytes(random: Random, count: number, mask = 0xff): Uint8Array {
  return Uint8Array.from({ length: count }, () => random.below(256) & mask);
}

/** Every group follows the one before it. */
export function groupIndices(inputs: number): Uint8Array {
  const groups = Int32Array.from({ length: inputs }, (_, input) => Math.floor(input / GROUP));
  return new Uint8Array(groups.buffer);
}

function packed(kind: PackedKind, weight: TestTensor, random: Random): TestTensor[] {
  const { name } = weight;
  const [out = 0, inputs = 0] = weight.shape;
  const stem = name.replace(/\.weight$/, '');
  const groups = inputs / GROUP;
  const tensor = (suffix: string, dtype: string, shape: number[], data: Uint8Array) => ({
    ...{ name: `${stem}${suffix}`, dtype, shape, data },
  });
  const scales = tensor('.scales', 'F16', [groups, out], random.floats('F16', groups * out));
  // Without the largest zero point, which readers of GPTQ do not agree on.
  const zeros = tensor(
    '.qzeros',
    'I32',
    [groups, out / 8],
    bytes(random, (groups * out) / 2, 0x77),
  );
  const codes = bytes(random, (inputs * out) / 2);
  if (kind === 'gptq') {
    const words = tensor('.qweight', 'I32', [inputs / 8, out], codes);
    return [words, zeros, scales, tensor('.g_idx', 'I32', [inputs], groupIndices(inputs))];
  }
  if (kind === 'awq') return [tensor('.qweight', 'I32', [inputs, out / 8], codes), zeros, scales];
  const grid = [out / GROUP, groups];
  const blocks = random.floats('F32', (out / GROUP) * groups);
  return [
    tensor('.weight', 'F8_E4M3', [out, inputs], bytes(random, out * inputs, 0xf7)),
    tensor('.weight_scale_inv', 'F32', grid, blocks),
  ];
}

/** Quantises the matrices of a tiny base's layers; with MXFP4, adds experts instead. */
export function packBase(base: TinyModel, random: Random, kind: PackedKind): void {
  base.config['quantization_config'] = { ...SETTINGS[kind] };
  if (kind === 'mxfp4') {
    const stem = 'model.layers.1.mlp.experts.down_proj';
    const blocks = bytes(random, 2 * 64 * 3 * 16);
    const scales = bytes(random, 2 * 64 * 3, 0x0f).map((scale) => 112 + scale);
    base.tensors.push(
      { name: `${stem}_blocks`, dtype: 'U8', shape: [2, 64, 3, 16], data: blocks },
      { name: `${stem}_scales`, dtype: 'U8', shape: [2, 64, 3], data: scales },
    );
    return;
  }
  for (const weight of base.tensors.filter(({ name }) => /_proj\.weight$/.test(name))) {
    alter(base, weight.name);
    base.tensors.push(...packed(kind, weight, random));
  }
}
