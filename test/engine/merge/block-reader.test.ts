import { createHash } from 'node:crypto';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { ByteSource } from '../../../engine/byte-source.ts';
import { WeldlineError } from '../../../engine/errors.ts';
import { BLOCK_BYTES, BlockReader, blockCounts } from '../../../engine/merge/block-reader.ts';
import type { MergeProgress } from '../../../engine/merge/shard-options.ts';
import type { StreamedInputs } from '../../../engine/merge/streamed-input.ts';
import type { TensorReference } from '../../../engine/plan/plan.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { mergeDirectories, planDirectories, readFiles } from '../../doubles/merge-directories.ts';
import { Random } from '../../doubles/random.ts';
import { writeModels } from '../../doubles/several-models.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';

const FILE = 'model.safetensors';
const SIZE = 12 * BLOCK_BYTES + 4324;

const CONTENT = Buffer.from(new Random(1).floats('F32', SIZE / 4).buffer, 0, SIZE);

interface Watched {
  readonly streamed: StreamedInputs;
  /** Begins of the reads, in their order. */
  readonly reads: number[];
  readonly rooms: Set<ArrayBufferLike>;
}

function watchedInput(wait: (offset: number) => Promise<unknown> = () => turn()): Watched {
  const reads: number[] = [];
  const rooms = new Set<ArrayBufferLike>();
  const source: ByteSource = {
    name: 'remote',
    size: SIZE,
    async read(offset, length, room) {
      reads.push(offset);
      await wait(offset);
      const bytes = room!.subarray(0, length);
      rooms.add(bytes.buffer);
      bytes.set(CONTENT.subarray(offset, offset + length));
      return bytes;
    },
    close: async () => undefined,
  };
  const files = { name: 'remote', sizes: new Map([[FILE, SIZE]]), open: async () => source };
  return { streamed: { base: { files, pin: 'x' } }, reads, rooms };
}

const whole: TensorReference = {
  ...{ input: 'base', file: FILE, offset: 0, byteLength: SIZE, dtype: 'U8', shape: [SIZE] },
};

async function expectBytes(reader: BlockReader, offset: number, length: number): Promise<void> {
  const into = new Uint8Array(length);
  await reader.read('base', FILE, offset, into);
  const isRight = CONTENT.subarray(offset, offset + length).equals(into);
  expect(isRight, `${length} bytes at ${offset}`).toBe(true);
}

test('threads that read a file in turns read each block once, within the memory for it', async () => {
  const threads = 3;
  const { streamed, reads, rooms } = watchedInput();
  const blocksMax = blockCounts(threads).least;
  const reader = new BlockReader(streamed, [whole], { blocksMax, threads });
  const step = BLOCK_BYTES - 4096;
  let next = 0;
  const thread = async (): Promise<void> => {
    for (let at = step * next++; at < SIZE; at = step * next++) {
      await expectBytes(reader, at, Math.min(step + 64, SIZE - at));
    }
  };
  await Promise.all(Array.from({ length: threads }, thread));
  await reader.close();
  expect(reads.toSorted((a, b) => a - b)).toEqual(
    Array.from({ length: 13 }, (_, index) => index * BLOCK_BYTES),
  );
  expect(rooms.size).toBeLessThanOrEqual(blocksMax);
});

test('what follows is read before it is asked for', async () => {
  const { streamed, reads } = watchedInput();
  const reader = new BlockReader(streamed, [whole], { blocksMax: 6, threads: 1 });
  await expectBytes(reader, 5, 10);
  await turn();
  expect(reads).toEqual([0, 1, 2, 3, 4, 5].map((index) => index * BLOCK_BYTES));
  await reader.close();
});

test('any ranges, by many at a time, with memory for no more than they are at', async () => {
  const { streamed, rooms } = watchedInput();
  const reader = new BlockReader(streamed, [whole], { blocksMax: 4, threads: 2 });
  const random = new Random(3);
  for (let round = 0; round < 6; round++) {
    const ranges = Array.from({ length: 8 }, () => {
      const offset = random.below(SIZE - 1);
      return [offset, 1 + random.below(Math.min(100_000, SIZE - offset))] as const;
    });
    await Promise.all(ranges.map((range) => expectBytes(reader, ...range)));
  }
  await reader.close();
  expect(rooms.size).toBeLessThanOrEqual(4);
});

test('a block that could not be read is asked for again', async () => {
  let failures = 1;
  const { streamed } = watchedInput(async (offset) => {
    if (offset === BLOCK_BYTES && failures-- > 0) throw new Error('the line is dead');
  });
  const reader = new BlockReader(streamed, [whole], { blocksMax: 4, threads: 1 });
  await expect(expectBytes(reader, BLOCK_BYTES, 10)).rejects.toThrow('the line is dead');
  await expectBytes(reader, BLOCK_BYTES, 10);
  await reader.close();
});

async function digestsIn(directory: string): Promise<Record<string, string>> {
  const files = await readFiles(directory);
  return Object.fromEntries(
    [...files].map(([name, bytes]) => [name, createHash('sha256').update(bytes).digest('hex')]),
  );
}

interface Case {
  readonly merge: (
    pin: string,
    read: (source: ByteSource) => ByteSource['read'],
    signal?: AbortSignal,
    onProgress?: (progress: MergeProgress) => void,
  ) => Promise<unknown>;
  readonly output: string;
  readonly local: string;
}

/** A tiny model whose base is read through `read`, in windows of a page. */
async function streamedMerge(): Promise<Case> {
  const inputs = await writeModels(tinyBase(), [tinyAdapter()]);
  const plan = await planDirectories(inputs);
  const root = await temporaryDirectory();
  const [base, output, local] = [join(root, 'base'), join(root, 'output'), join(root, 'local')];
  await mergeDirectories({ ...inputs, plan, output: local });
  await cp(inputs.base, base, { recursive: true });
  await rm(join(base, FILE));
  const remote = await openModelDirectory(inputs.base);
  const merge: Case['merge'] = async (pin, read, signal, onProgress) => {
    const files = {
      ...remote,
      async open(path: string) {
        const source = await remote.open(path);
        return { ...source, read: read(source) };
      },
    };
    const manner = {
      threads: 3,
      windowBytes: 4096,
      ...(signal && { signal }),
      ...(onProgress && { onProgress }),
    };
    return mergeDirectories({
      ...inputs,
      base,
      plan,
      output,
      streamed: { base: { files, pin } },
      ...manner,
    });
  };
  return { merge, output, local };
}

test('a source that fails for good ends the merge with its own error, and the merge goes on later', async () => {
  const { merge, output, local } = await streamedMerge();
  const dead = new WeldlineError('source.changed', 'The model is another one now.');
  await expect(merge('a', () => () => Promise.reject(dead))).rejects.toBe(dead);
  await merge('a', (source) => source.read);
  expect(await digestsIn(output)).toEqual(await digestsIn(local));
});

test('a merge that waits for bytes hears that it shall stop', async () => {
  const { merge } = await streamedMerge();
  const controller = new AbortController();
  const waiting = merge(
    'a',
    () => async () => {
      controller.abort(new Error('enough'));
      await sleep(60_000, undefined, { ref: false, signal: AbortSignal.timeout(200) });
      throw new Error('the source was closed');
    },
    controller.signal,
  );
  await expect(waiting).rejects.toThrow('enough');
});

test('what was made of another state of a source is not used', async () => {
  const { merge, output, local } = await streamedMerge();
  const controller = new AbortController();
  const spoilt =
    ({ read }: ByteSource): ByteSource['read'] =>
    async (...range) =>
      (await read(...range)).map((value, index) => (index < 10_000 ? value : value ^ 1));
  const stopped = merge('before', spoilt, controller.signal, ({ bytesDone, bytesTotal }) => {
    if (bytesDone > 0.5 * bytesTotal) controller.abort(new Error('stopped'));
  });
  await expect(stopped).rejects.toThrow('stopped');
  await merge('after', (source) => source.read);
  expect(await digestsIn(output)).toEqual(await digestsIn(local));
});
