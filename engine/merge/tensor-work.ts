import { assert } from '../errors.ts';
import type { PlannedChange, PlannedDelta, PlannedTensor, TensorReference } from '../plan/plan.ts';
import { isMerged, sourceReferences } from '../plan/planned-tensor.ts';
import {
  bytesOf,
  elementCount,
  isMergeDtype,
  KERNEL_DTYPE,
  type MergeDtype,
} from '../safetensors/dtype.ts';
import { bandSteps, deltasOfStep } from './bands/band-steps.ts';

/**
 * How an output tensor comes about, in this order: values are read from a source (as stored, or as
 * what a quantised weight dequantises to), deltas are added (`band`: and more is done, see
 * `band-maker.ts`), the result is rounded to the output's dtype, and rows that were trained take their
 * places (`tokens`). The name is that of the step that decides how it is cut: rows of a matrix,
 * elements or bytes.
 */
export type TensorWork = 'copy' | 'cast' | 'dequantize' | 'delta' | 'band';

export function workOf({ from, dtype, deltas, changes, combination }: PlannedTensor): TensorWork {
  if (changes !== undefined || combination !== undefined) return 'band';
  if (deltas !== undefined) {
    return deltas.some(({ magnitude }) => magnitude !== undefined) ? 'band' : 'delta';
  }
  if (from.quantization !== undefined) return 'dequantize';
  return from.dtype === dtype ? 'copy' : 'cast';
}

/**
 * Of a tensor that is made in bands: the deltas that are added to its source at once (`summed`), and
 * those that are needed as rows of their own (`dense`).
 * @param deltas of the rows in question, where not all are of all rows
 */
export function bandDeltas(
  tensor: PlannedTensor,
  deltas: readonly PlannedDelta[] = tensor.deltas ?? [],
): {
  readonly summed: readonly PlannedDelta[];
  readonly dense: readonly PlannedDelta[];
} {
  if (tensor.combination !== undefined) return { summed: [], dense: deltas };
  const steps = bandSteps(tensor);
  if (steps === undefined) return { summed: deltas, dense: [] };
  return { summed: [], dense: steps.flatMap(deltasOfStep) };
}

/** Whether a tensor has the bytes of its source and no others. */
export function isCopied(tensor: PlannedTensor): boolean {
  return workOf(tensor) === 'copy' && tensor.tokens === undefined;
}

/** The dtype of a weight before it is merged or cast: of a quantised one, once it is dequantised. */
export function inputDtype({ name, from }: Pick<PlannedTensor, 'name' | 'from'>): MergeDtype {
  const dtype = from.quantization?.dtype ?? from.dtype;
  assert(isMergeDtype(dtype), `${name} comes from no float dtype`);
  return dtype;
}

/**
 * The smallest piece of a tensor that can be worked on by itself: a byte of a copy, an element of
 * what is cast or dequantised, a row of a merge.
 */
export interface WorkUnits {
  readonly kind: 'bytes' | 'elements' | 'rows';
  readonly count: number;
  /** Of a quantised weight, once it is dequantised. */
  readonly inputBytes: number;
  readonly outputBytes: number;
}

export function unitsOf(tensor: PlannedTensor): WorkUnits {
  const { byteLength, dtype, shape } = tensor;
  if (workOf(tensor) === 'copy') {
    return { kind: 'bytes', count: byteLength, inputBytes: 1, outputBytes: 1 };
  }
  assert(isMergeDtype(dtype), `${tensor.name} has no float dtype`);
  const [inputBytes, outputBytes] = [bytesOf(inputDtype(tensor)), bytesOf(dtype)];
  if (!isMerged(tensor)) {
    return { kind: 'elements', count: elementCount(shape), inputBytes, outputBytes };
  }
  const { rows, columns } = matrixOf(tensor);
  const [inputRow, outputRow] = [columns * inputBytes, columns * outputBytes];
  return { kind: 'rows', count: rows, inputBytes: inputRow, outputBytes: outputRow };
}

/** All that is read to make a tensor. */
export function referencesOf(tensor: PlannedTensor): TensorReference[] {
  const { from, tokens = [] } = tensor;
  const factors = (tensor.deltas ?? []).flatMap(({ a, b, magnitude, rankScale, outScale }) => [
    ...[a, b, magnitude, rankScale, outScale],
  ]);
  const beside = [...factors, ...(tensor.changes ?? []).flatMap(referencesOfChange)];
  const found = beside.filter((reference) => reference !== undefined);
  return [...sourceReferences(from), ...found, ...tokens.map((rows) => rows.from)];
}

function referencesOfChange(change: PlannedChange): (TensorReference | undefined)[] {
  switch (change.kind) {
    case 'hadamard':
      return [change.first.a, change.first.b, change.second.a, change.second.b];
    case 'kronecker':
      return [change.left.a, change.left.b, change.right.a, change.right.b];
    case 'scale':
      return [change.vector];
    case 'rotation':
      return [change.blocks];
  }
}

/**
 * A merged tensor as the matrix that deltas are added to: a bias is one row, of all experts' weights
 * the rows of one follow those of the other.
 */
export function matrixOf({ shape }: Pick<PlannedTensor, 'shape'>): {
  readonly rows: number;
  readonly columns: number;
} {
  const columns = shape.at(-1);
  assert(columns !== undefined, 'a scalar takes no delta');
  return { rows: elementCount(shape.slice(0, -1)), columns };
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
