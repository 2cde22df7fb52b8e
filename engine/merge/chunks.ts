import { assert } from '../errors.ts';
import type { PlannedShard, PlannedTensor } from '../plan/plan.ts';
import { bytesOf, elementCount, isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';

/** How an output tensor comes about. */
export type TensorWork = 'copy' | 'cast' | 'delta';

export function workOf(tensor: PlannedTensor): TensorWork {
  if (tensor.delta !== undefined) return 'delta';
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
  const [rows = 0, columns = 0] = tensor.shape;
  return { count: rows, inputBytes: columns * inputBytes, outputBytes: columns * outputBytes };
}

/** A run of units of one tensor: what a worker thread does between two looks at the queue. */
export interface Chunk {
  /** Index of the tensor in its shard. */
  readonly tensor: number;
  /** First unit and the one after the last. */
  readonly begin: number;
  readonly end: number;
}

/** A range of bytes of the output shard. */
export interface ByteRange {
  readonly begin: number;
  readonly end: number;
}

export function outputRange(shard: PlannedShard, chunk: Chunk): ByteRange {
  const tensor = shard.tensors[chunk.tensor] as PlannedTensor;
  const { outputBytes } = unitsOf(tensor);
  return {
    begin: tensor.offset + chunk.begin * outputBytes,
    end: tensor.offset + chunk.end * outputBytes,
  };
}

/** Units of a tensor that go into one chunk: as many as fit, but at least one. */
export function unitsPerChunk(units: WorkUnits, chunkBytesMax: number): number {
  const widest = Math.max(units.inputBytes, units.outputBytes, 1);
  return Math.max(1, Math.min(units.count, Math.floor(chunkBytesMax / widest)));
}

/** Cuts a shard into chunks, in file order. */
export function cutIntoChunks(shard: PlannedShard, chunkBytesMax: number): Chunk[] {
  const chunks: Chunk[] = [];
  for (const [tensor, planned] of shard.tensors.entries()) {
    const units = unitsOf(planned);
    const step = unitsPerChunk(units, chunkBytesMax);
    for (let begin = 0; begin < units.count; begin += step) {
      chunks.push({ tensor, begin, end: Math.min(units.count, begin + step) });
    }
  }
  return chunks;
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
