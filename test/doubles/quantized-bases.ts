/** The kinds of bases that merges go onto what they dequantise to. */
import type { MergeOptions } from '../../engine/plan/plan.ts';
import { type PackedKind, packBase } from './packed-base.ts';
import { quantizeBase } from './quantized-weight.ts';
import { Random } from './random.ts';
import { randomTensor, type TinyModel } from './tiny-model.ts';

export type BaseKind = PackedKind | 'nf4' | 'int8' | 'simulated_nf4';

export const BASES: readonly BaseKind[] = [
  ...(['nf4', 'int8', 'gptq', 'awq', 'fp8', 'mxfp4', 'simulated_nf4'] as const),
];

/** Quantises a base, unless the merge is to take it as NF4. */
export function quantized(kind: BaseKind, base: TinyModel): TinyModel {
  const random = new Random(11);
  if (kind === 'nf4' || kind === 'int8') quantizeBase(base, random, kind);
  else if (kind !== 'simulated_nf4') packBase(base, random, kind);
  return base;
}

/**
 * The options that take a base of this kind. What LLM.int8 dequantises to is float32 that 16 bits
 * do not hold, so that dtype is the one in which it can be written and merged onto.
 */
export function mergeOntoOf(kind: BaseKind): MergeOptions {
  if (kind === 'int8') return { mergeOnto: 'dequantized', dtype: 'float32' };
  return { mergeOnto: kind === 'simulated_nf4' ? kind : 'dequantized' };
}

/** Adds biases to the queries and values. */
export function withBiases(base: TinyModel): TinyModel {
  const random = new Random(12);
  for (const { name, shape } of base.tensors.filter((each) => /[qv]_proj\./.test(each.name))) {
    const bias = name.replace(/weight$/, 'bias');
    base.tensors.push(randomTensor(random, bias, 'BF16', [shape[0] ?? 0]));
  }
  return base;
}
