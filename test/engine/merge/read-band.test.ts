import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { InputFiles } from '../../../engine/merge/input-files.ts';
import { readBand } from '../../../engine/merge/readers/read-band.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';

/** Whole rows; gaps that are read along, in one piece and in many; gaps that are left out. */
test.each([
  { what: 'whole rows', rows: 5, stride: 12, bytes: 12 },
  { what: 'small gaps', rows: 7, stride: 100, bytes: 12 },
  { what: 'small gaps in several pieces', rows: 200, stride: 4000, bytes: 8 },
  { what: 'large gaps', rows: 9, stride: 20_000, bytes: 64 },
])('$what', async ({ rows, stride, bytes }) => {
  const root = await temporaryDirectory();
  const [begin, offset] = [24, stride - bytes === 0 ? 0 : 4];
  const random = new Random(8);
  // Ends with the last row: nothing beyond it may be read.
  const length = begin + offset + (rows - 1) * stride + bytes;
  const content = Uint8Array.from({ length }, () => random.below(256));
  await writeFile(join(root, 'w'), content);
  const files = new InputFiles({ base: root });
  const into = new Uint8Array(rows * bytes + 3).fill(7);
  try {
    const tensor = { input: 'base', file: 'w', offset: begin, byteLength: 0 };
    readBand(
      files,
      { ...tensor, dtype: 'U8', shape: [rows, stride] },
      { offset, rows, stride, bytes },
      into,
    );
  } finally {
    files.close();
  }
  const expected = Array.from({ length: rows }, (_, row) => {
    const at = begin + offset + row * stride;
    return [...content.subarray(at, at + bytes)];
  });
  expect([...into]).toEqual([...expected.flat(), 7, 7, 7]);
});
