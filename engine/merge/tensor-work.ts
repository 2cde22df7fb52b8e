import { assert } from '../errors.ts';
import type { PlannedTensor, TensorReference } from '../plan/plan.ts';
import { bytesOf, elementCount, isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';

/** How an output tensor comes about. */
export type TensorWork = 'copy' | 'cast' | 'delta' | 'dora';

export function workOf(tensor: PlannedTensor): TensorWork {
  if (tensor.delta !== undefined) return tensor.delta.magnitude === undefined ? 'delta' : 'dora';
  return tensor.from.dtype === tensor.dtype ? 'copy' : 'cast';
}

/**
 * The smallest piece of a tensor that can be worked on by itself: a byte of a copy, an element of a
 * cast, a row of a merge.
 */
export interface WorkUnits {
  readonly count: number;
  readonly inputBytes: number;
  readonly outputBytes: number;
}

export function unitsOf(tensor: PlannedTensor): WorkUnits {
  const work = workOf(tensor);
  if (work === 'copy') return { count: tensor.byteLength, inputBytes: 1, outputBytes: 1 };
  const { from } = tensor;
  assert(
    isMergeDtype(from.dtype) && isMergeDtype(tensor.dtype),
    `${tensor.name} has no float dtype`,
  );
  const [inputBytes, outputBytes] = [bytesOf(from.dtype), bytesOf(tensor.dtype)];
  if (work === 'cast') return { count: elementCount(tensor.shape), inputBytes, outputBytes };
  const { rows, columns } = matrixOf(tensor);
  return { count: rows, inputBytes: columns * inputBytes, outputBytes: columns * outputBytes };
}

/** All that is read to make a tensor. */
export function referencesOf({ from, delta, tokens }: PlannedTensor): TensorReference[] {
  return [from, delta?.a, delta?.b, delta?.magnitude, tokens?.from].filter(
    (reference) => reference !== undefined,
  );
}

/** A merged tensor as the matrix that deltas are added to: a bias is one row. */
export function matrixOf({ shape }: Pick<PlannedTensor, 'shape'>): {
  readonly rows: number;
  readonly columns: number;
} {
  const [rows, columns] = shape.length === 1 ? [1, shape[0]] : shape;
  assert(rows !== undefined && columns !== undefined, 'a scalar takes no delta');
  return { rows, columns };
}

/** The kernel's names of a tensor's dtypes. */
export function kernelDtypes(tensor: PlannedTensor): {
  readonly dtypeIn: (typeof KERNEL_DTYPE)['BF16'];
  readonly dtypeOut: (typeof KERNEL_DTYPE)['BF16'];
} {
  const { dtype } = tensor;
  assert(isMergeDtype(tensor.from.dtype) && isMergeDtype(dtype), `${tensor.name} is no float`);
  return { dtypeIn: KERNEL_DTYPE[tensor.from.dtype], dtypeOut: KERNEL_DTYPE[dtype] };
}
