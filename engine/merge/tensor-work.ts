import { assert } from '../errors.ts';
import type { PlannedTensor } from '../plan/plan.ts';
import {
  bytesOf,
  elementCount,
  isMergeDtype,
  KERNEL_DTYPE,
  type MergeDtype,
} from '../safetensors/dtype.ts';

/** How an output tensor comes about. */
export type TensorWork = 'copy' | 'cast' | 'dequantize' | 'delta';

export function workOf(tensor: PlannedTensor): TensorWork {
  if (tensor.delta !== undefined) return 'delta';
  if (tensor.from.quantization !== undefined) return 'dequantize';
  return tensor.from.dtype === tensor.dtype ? 'copy' : 'cast';
}

/** The dtype of a weight before it is merged or cast: of a quantised one, once it is dequantised. */
export function inputDtype({ name, from }: PlannedTensor): MergeDtype {
  const dtype = from.quantization?.dtype ?? from.dtype;
  assert(isMergeDtype(dtype), `${name} comes from no float dtype`);
  return dtype;
}

/**
 * The smallest piece of a tensor that can be worked on by itself: a byte of a copy, an element of
 * what is cast or dequantised, a row of a merge.
 */
export interface WorkUnits {
  readonly count: number;
  /** Of a quantised weight, once it is dequantised. */
  readonly inputBytes: number;
  readonly outputBytes: number;
}

export function unitsOf(tensor: PlannedTensor): WorkUnits {
  const work = workOf(tensor);
  if (work === 'copy') return { count: tensor.byteLength, inputBytes: 1, outputBytes: 1 };
  assert(isMergeDtype(tensor.dtype), `${tensor.name} has no float dtype`);
  const [inputBytes, outputBytes] = [bytesOf(inputDtype(tensor)), bytesOf(tensor.dtype)];
  if (work !== 'delta') return { count: elementCount(tensor.shape), inputBytes, outputBytes };
  const [rows = 0, columns = 0] = tensor.shape;
  return { count: rows, inputBytes: columns * inputBytes, outputBytes: columns * outputBytes };
}

/** The kernel's names of a tensor's dtypes. */
export function kernelDtypes(tensor: PlannedTensor): {
  readonly dtypeIn: (typeof KERNEL_DTYPE)['BF16'];
  readonly dtypeOut: (typeof KERNEL_DTYPE)['BF16'];
} {
  const { dtype } = tensor;
  assert(isMergeDtype(dtype), `${tensor.name} is no float`);
  return { dtypeIn: KERNEL_DTYPE[inputDtype(tensor)], dtypeOut: KERNEL_DTYPE[dtype] };
}
