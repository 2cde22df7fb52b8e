import { type FileHandle, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { PlannedTensor } from '../../../engine/plan/plan.ts';
import type { ReadTensor } from '../../../engine/verify/factor-rows.ts';
import { verifyRows } from '../../../engine/verify/verify-rows.ts';
import { mergeDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  baseFiles,
  type FloatName,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';

const TARGET = 'model.layers.1.mlp.up_proj.weight';
const ROW = 3;

interface MergedTensor {
  readonly tensor: PlannedTensor;
  readonly read: ReadTensor;
  readonly output: FileHandle;
}

/** A tiny model merged to float32, and its shard opened for spoiling. */
async function mergeToFloat32(dtype: FloatName): Promise<MergedTensor> {
  const root = await temporaryDirectory();
  const inputs = { base: join(root, 'base'), a: join(root, 'adapter') };
  await writeFiles(inputs.base, baseFiles(tinyBase({ dtype })));
  await writeFiles(inputs.a, adapterFiles(tinyAdapter({ rank: 5 })));
  const output = join(root, 'output');
  const { plan } = await mergeDirectories({
    base: inputs.base,
    adapter: inputs.a,
    output,
    options: { dtype: 'float32' },
  });
  const shard = plan.shards.find(({ tensors }) => tensors.some(({ name }) => name === TARGET));
  const tensor = shard?.tensors.find(({ name }) => name === TARGET);
  if (shard === undefined || tensor === undefined) throw new Error(`nobody merges ${TARGET}`);
  const read: ReadTensor = async ({ input, file, offset: begin }, offset, length) => {
    const bytes = await readFile(join(inputs[input as keyof typeof inputs], file));
    return bytes.subarray(begin + offset, begin + offset + length);
  };
  return { tensor, read, output: await open(join(output, shard.file), 'r+') };
}

const bytesAt = (file: FileHandle) => async (offset: number, length: number) => {
  const { buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
  return buffer;
};

test.each<FloatName>(['F32', 'BF16'])(
  'a float32 value merged from %s must be the nearest: its last bit counts',
  async (dtype) => {
    const { tensor, read, output } = await mergeToFloat32(dtype);
    const reading = { read: bytesAt(output) };
    try {
      const verify = (): Promise<number> => verifyRows(tensor, [ROW], read, reading);
      expect(await verify()).toBeLessThanOrEqual(1);
      const columns = tensor.shape[1] ?? 0;
      for (const column of [0, 1, columns - 1]) {
        const place = tensor.offset + (ROW * columns + column) * 4;
        const original = Buffer.alloc(4);
        await output.read(original, 0, 4, place);
        for (const step of [-1, 1]) {
          const spoilt = Buffer.alloc(4);
          spoilt.writeUInt32LE(original.readUInt32LE() + step);
          await output.write(spoilt, 0, 4, place);
          await expect(verify()).rejects.toMatchObject({
            code: 'verify.recomputation-mismatch',
            message: expect.stringContaining(`row ${ROW}, column ${column}:`),
          });
        }
        await output.write(original, 0, 4, place);
      }
      expect(await verify()).toBeLessThanOrEqual(1);
    } finally {
      await output.close();
    }
  },
);
