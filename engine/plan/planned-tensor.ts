/**
 * What is asked of planned tensors by the threads of a merge: not beside the plan's schema, whose library
 * takes each of them 70 ms and 20 MB to load.
 */
import type { PlannedTensor, TensorReference, TensorSource } from './plan-schema.ts';

/** Every tensor that a weight's values are read from. */
export function sourceReferences(from: TensorSource): TensorReference[] {
  const { quantization } = from;
  if (quantization === undefined) return [from];
  switch (quantization.scheme) {
    case 'simulated_nf4':
      return [from];
    case 'int8':
    case 'fp8':
    case 'mxfp4':
      return [from, quantization.scales];
    case 'gptq':
    case 'awq': {
      const { zeros, scales, groups } = quantization;
      return [from, zeros, scales, ...(groups === undefined ? [] : [groups])];
    }
    default: {
      const { absmax, nested } = quantization;
      return [from, absmax, ...(nested === undefined ? [] : [nested.absmax, nested.map])];
    }
  }
}

/** Whether an adapter changes a tensor otherwise than by taking its place. */
export function isMerged({ deltas, changes }: PlannedTensor): boolean {
  return deltas !== undefined || changes !== undefined;
}
