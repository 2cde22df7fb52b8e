import { chmod, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { toReadError } from '../disk-errors.ts';
import { copyFileDurably, temporaryBeside } from '../durable-files.ts';
import type { InputFile } from '../plan/plan.ts';
import { layoutFile } from '../safetensors/layout.ts';
import type { CompletedShard } from './journal.ts';
import { completeFrom } from './shard-file.ts';
import type { MergeShardOptions } from './shard-options.ts';
import { streamedInput } from './streamed-input.ts';
import { isCopied } from './tensor-work.ts';

/** An input file that a shard would be, byte for byte. */
export interface Original {
  readonly path: string;
  readonly file: InputFile;
}

/** @returns the original of a shard that no adapter and no option changes; else undefined */
export async function findOriginal({
  plan,
  shard,
  roots,
  streamed = {},
}: MergeShardOptions): Promise<Original | undefined> {
  const [first] = shard.tensors;
  if (first === undefined) return undefined;
  const { input, file: name } = first.from;
  // What streams through is merged like any other: it has a journal then, and is read ahead.
  if (streamedInput(streamed, input, name) !== undefined) return undefined;
  const isInPlace = shard.tensors.every(
    (tensor) =>
      isCopied(tensor) &&
      tensor.from.input === input &&
      tensor.from.file === name &&
      tensor.from.offset === tensor.offset,
  );
  const files = plan.inputs.find(({ id }) => id === input)?.files ?? [];
  const file = files.find(({ path }) => path === name);
  if (!isInPlace || file?.size !== shard.size) return undefined;
  const path = join(roots[input] ?? '', name);
  // Another writer may have ordered or padded the header in another way.
  const { header } = layoutFile(shard.tensors);
  return Buffer.compare(header, await readStart(path, header.length)) === 0
    ? { path, file }
    : undefined;
}

/**
 * Copies a shard as a whole: shares its blocks where the file system can, else in the kernel.
 * @returns size and SHA-256 of the original, as they were planned
 */
export async function copyOriginal(
  { shard, directory, planDigest }: MergeShardOptions,
  { path, file }: Original,
): Promise<CompletedShard> {
  await mkdir(directory.files, { recursive: true });
  // A name of its own: a copy over a file that another attempt has finished would empty it first.
  const copy = temporaryBeside(join(directory.files, shard.file));
  try {
    await copyFileDurably(path, copy);
    // Inputs may be read-only, in a cache for example; the output need not be.
    await chmod(copy, 0o644);
    const result = { size: file.size, sha256: file.sha256 };
    await completeFrom(copy, result, { shard, directory, planDigest });
    return result;
  } finally {
    await rm(copy, { force: true });
  }
}

async function readStart(path: string, length: number): Promise<Uint8Array> {
  try {
    const file = await open(path, 'r');
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw toReadError(error, path);
  }
}
