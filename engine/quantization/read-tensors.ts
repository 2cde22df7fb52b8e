import type { ByteSource } from '../byte-source.ts';
import type { ModelFiles } from '../model-files.ts';
import type { CheckpointTensor } from '../safetensors/checkpoint.ts';

/** Reads at the same time: enough to hide a hub's latency. */
const PARALLEL_READS = 8;

/** Reads whole tensors, which must be small. */
export async function readTensors(
  files: ModelFiles,
  tensors: readonly CheckpointTensor[],
): Promise<ReadonlyMap<string, Uint8Array>> {
  const values = new Map<string, Uint8Array>();
  for (const file of new Set(tensors.map((tensor) => tensor.file))) {
    const inFile = tensors.filter((tensor) => tensor.file === file);
    const source = await files.open(file);
    try {
      await readFrom(source, inFile, values);
    } finally {
      await source.close();
    }
  }
  return values;
}

async function readFrom(
  source: ByteSource,
  tensors: readonly CheckpointTensor[],
  values: Map<string, Uint8Array>,
): Promise<void> {
  let next = 0;
  const readNext = async (): Promise<void> => {
    for (let tensor = tensors[next++]; tensor !== undefined; tensor = tensors[next++]) {
      values.set(tensor.name, await source.read(tensor.offset, tensor.byteLength));
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_READS }, readNext));
}
