import type { CheckpointFile } from '../safetensors/checkpoint.ts';
import { SINGLE_FILE } from '../safetensors/checkpoint.ts';
import { byteLengthOf, layoutFile } from '../safetensors/layout.ts';
import type { PlannedShard, PlannedTensor } from './plan.ts';

/** A planned tensor that has no place in a file yet. */
export type UnplacedTensor = Omit<PlannedTensor, 'offset' | 'byteLength'>;

/** Tensors and the base file they belong to, in the order of that file. */
export interface TensorGroup {
  readonly file: string;
  readonly tensors: readonly UnplacedTensor[];
}

/**
 * Distributes tensors over output shards. Without a limit the base's files are kept, one to one;
 * with one, tensors are packed in the order of the base, and a tensor larger than the limit gets a
 * shard to itself.
 */
export function planShards(
  groups: readonly TensorGroup[],
  shardBytesMax: number | undefined,
): PlannedShard[] {
  const kept = groups.filter((group) => group.tensors.length > 0);
  if (shardBytesMax === undefined) {
    return kept.map(({ file, tensors }) => placeTensors(file, tensors));
  }
  const packed = pack(
    kept.flatMap((group) => group.tensors),
    shardBytesMax,
  );
  return packed.map((tensors, index) => {
    const file = packed.length === 1 ? SINGLE_FILE : shardName(index + 1, packed.length);
    return placeTensors(file, tensors);
  });
}

function pack(tensors: readonly UnplacedTensor[], shardBytesMax: number): UnplacedTensor[][] {
  const shards: UnplacedTensor[][] = [];
  let current: UnplacedTensor[] = [];
  let currentBytes = 0;
  for (const tensor of tensors) {
    const bytes = byteLengthOf(tensor);
    if (current.length > 0 && currentBytes + bytes > shardBytesMax) {
      shards.push(current);
      current = [];
      currentBytes = 0;
    }
    current.push(tensor);
    currentBytes += bytes;
  }
  if (current.length > 0) shards.push(current);
  return shards;
}

/** The names that transformers gives the shards of a checkpoint. */
function shardName(number: number, count: number): string {
  const digits = (value: number): string => String(value).padStart(5, '0');
  return `model-${digits(number)}-of-${digits(count)}.safetensors`;
}

function placeTensors(file: string, tensors: readonly UnplacedTensor[]): PlannedShard {
  const layout = layoutFile(tensors);
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  return {
    file,
    size: layout.size,
    tensors: layout.tensors.map(({ name, offset, byteLength }) => ({
      // All of it, so that nothing of what is done to a tensor is lost here.
      ...(byName.get(name) as UnplacedTensor),
      offset,
      byteLength,
    })),
  };
}

/** The base's files as groups, before tensors are changed. */
export function groupByFile(
  files: readonly CheckpointFile[],
  plan: (name: string) => UnplacedTensor,
): TensorGroup[] {
  return files.map(({ path, tensors }) => ({
    file: path,
    tensors: tensors.map(({ name }) => plan(name)),
  }));
}
