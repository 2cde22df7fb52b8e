import { isConv1d } from '../architectures/conv1d.ts';
import { hasPlainModules, isLinearWeight } from '../architectures/linear-modules.ts';
import type { ModelConfig } from '../architectures/model-config.ts';
import { WeldlineError } from '../errors.ts';
import type { SimulatedQuantization, TensorReference } from '../plan/plan.ts';
import type { Checkpoint } from '../safetensors/checkpoint.ts';
import type { MergeDtype } from '../safetensors/dtype.ts';
import type { DequantizedCheckpoint } from './bitsandbytes.ts';
import { NF4_BLOCK } from './nf4.ts';
import { referTo } from './quantized-parts.ts';

/** A weight as stored, to be taken as NF4. */
export type SimulatedSource = TensorReference & { quantization: SimulatedQuantization };

/**
 * A 16-bit base as NF4 would make it, in blocks of 64 and without double quantisation: all weights
 * that bitsandbytes would have quantised are to be quantised and dequantised as they are read.
 *
 * Source: transformers' `replace_with_bnb_linear` and `get_keys_to_not_convert`.
 *
 * @throws WeldlineError `checkpoint.quantized-base` if the base is quantised already,
 *   `plan.option-invalid` for an architecture of which it is not known which weights these are
 */
export function simulateNf4(
  where: string,
  { checkpoint, quantized }: DequantizedCheckpoint,
  config: ModelConfig,
): DequantizedCheckpoint {
  const { modelType } = config;
  if (quantized.size > 0) {
    throw new WeldlineError(
      'checkpoint.quantized-base',
      `merge_onto (--merge-onto) is simulated_nf4, which takes a 16-bit base, and ${where} is ` +
        `quantised (${quantized.size} weights). Choose dequantized, or name the 16-bit repository.`,
    );
  }
  if (!hasPlainModules(modelType)) {
    const type = modelType === undefined ? 'of no model_type' : `a ${modelType.slice(0, 100)}`;
    throw new WeldlineError(
      'plan.option-invalid',
      `${where} is ${type}, and which of its weights bitsandbytes quantises is not known or differs ` +
        'between versions of transformers, so simulated_nf4 is refused. Save the base in 4 bits ' +
        'with transformers, name that as the base, and choose dequantized.',
    );
  }
  const simulated = findLinearWeights(checkpoint, config);
  for (const [name, { quantization, shape }] of simulated) {
    if (!quantization?.transposed || (shape[0] ?? 0) % NF4_BLOCK === 0) continue;
    throw new WeldlineError(
      'plan.option-invalid',
      `${where}: "${name}" is a Conv1D with ${shape[0]} inputs, no multiple of ${NF4_BLOCK}: ` +
        'simulated_nf4 cannot be worked out for it. Save the base in 4 bits with transformers.',
    );
  }
  return { checkpoint, quantized: simulated };
}

/** The weights of a plain architecture that bitsandbytes would quantise, taken as NF4. */
export function findLinearWeights(
  checkpoint: Checkpoint,
  { modelType }: ModelConfig,
): ReadonlyMap<string, SimulatedSource> {
  const simulated = new Map<string, SimulatedSource>();
  for (const tensor of checkpoint.tensors.values()) {
    if (!isLinearWeight(tensor)) continue;
    const { name } = tensor;
    const transposed = isConv1d(modelType, name.replace(/\.weight$/, '')) === true;
    const dtype = tensor.dtype as MergeDtype;
    const quantization = { scheme: 'simulated_nf4', dtype, transposed } as const;
    simulated.set(name, { ...referTo(tensor), quantization });
  }
  return simulated;
}
