import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Plan } from '../../engine/plan/plan.ts';
import type { ReadTensor } from '../../engine/verify/factor-rows.ts';
import { verifyRows } from '../../engine/verify/verify-rows.ts';
import { openFileSource } from '../../sources/file-source.ts';

/** Every row of every merged tensor, worked out again in float64. */
export async function verifyAllRows(
  plan: Plan,
  roots: Readonly<Record<string, string>>,
  output: string,
): Promise<void> {
  const contents = new Map<string, Buffer>();
  const read: ReadTensor = async ({ input, file, offset }, begin, length) => {
    const path = join(roots[input]!, file);
    const content = contents.get(path) ?? (await readFile(path));
    contents.set(path, content);
    return content.subarray(offset + begin, offset + begin + length);
  };
  for (const shard of plan.shards) {
    const file = await openFileSource(join(output, shard.file));
    for (const tensor of shard.tensors.filter(({ deltas }) => deltas !== undefined)) {
      const rows = tensor.shape.slice(0, -1).reduce((product, extent) => product * extent, 1);
      const all = Array.from({ length: rows }, (_, row) => row);
      await verifyRows(tensor, all, read, file);
    }
    await file.close();
  }
}
