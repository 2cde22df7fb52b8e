import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { WindowWriter } from '../../../engine/merge/window-writer.ts';
import { PAGE_BYTES } from '../../../engine/merge/windows.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';

/** Bytes at `misalignment` after a page of memory: WebAssembly memory is allocated in pages. */
function patternAt(misalignment: number, length: number, seed: number): Uint8Array {
  const pages = Math.ceil((misalignment + length) / 65_536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const bytes = new Uint8Array(memory.buffer, misalignment, length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + seed) & 0xff;
  return bytes;
}

async function fileOf(size: number): Promise<string> {
  const path = join(await temporaryDirectory(), 'shard');
  await writeFile(path, new Uint8Array(size));
  return path;
}

test('what is written in windows, in any order, is read back, to the last byte', async () => {
  const windows = fc.record({
    pages: fc.integer({ min: 1, max: 4 }),
    size: fc.integer({ min: 1, max: 40_000 }),
    isReversed: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(windows, async ({ pages, size, isReversed }) => {
      const path = await fileOf(size);
      const whole = patternAt(0, size, size);
      const step = pages * PAGE_BYTES;
      const starts = Array.from({ length: Math.ceil(size / step) }, (_, index) => index * step);
      const writer = new WindowWriter(path);
      for (const start of isReversed ? starts.toReversed() : starts) {
        writer.write(whole.subarray(start, start + step), start);
      }
      writer.close();
      expect(Buffer.compare(await readFile(path), whole)).toBe(0);
    }),
    { numRuns: 30 },
  );
});

test('where direct I/O is refused, the page cache takes the bytes', async () => {
  const path = await fileOf(3 * PAGE_BYTES);
  const writer = new WindowWriter(path);
  // No file system takes memory at an odd address for direct I/O, save those that have none.
  const first = patternAt(1, 2 * PAGE_BYTES, 7);
  writer.write(first, 0);
  const second = patternAt(0, PAGE_BYTES, 9);
  writer.write(second, 2 * PAGE_BYTES);
  writer.close();
  expect(Buffer.compare(await readFile(path), Buffer.concat([first, second]))).toBe(0);
});

test('a file that cannot be written is named', async () => {
  const path = join(await temporaryDirectory(), 'absent');
  expect(() => new WindowWriter(path)).toThrow(/absent cannot be written \(ENOENT\)/);
  const full = new WindowWriter('/dev/full');
  expect(() => full.write(patternAt(0, PAGE_BYTES, 1), 0)).toThrow(/The disk is full: \/dev\/full/);
  full.close();
});

test('writers of one file, direct and not, see each other’s bytes', async () => {
  const path = await fileOf(2 * PAGE_BYTES);
  const writer = new WindowWriter(path);
  const file = await open(path, 'r+');
  const bytes = patternAt(0, PAGE_BYTES, 3);
  await file.write(bytes, 0, PAGE_BYTES, 0);
  writer.write(bytes, PAGE_BYTES);
  const found = Buffer.alloc(2 * PAGE_BYTES);
  await file.read(found, 0, found.length, 0);
  await file.close();
  writer.close();
  expect(Buffer.compare(found, Buffer.concat([bytes, bytes]))).toBe(0);
});
