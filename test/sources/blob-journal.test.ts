import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BlobJournal, mergeRanges, parseJournal, splitRanges } from '../../sources/blob-journal.ts';

const SIZE = 1000;
let directory = '';
let file = '';
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'weldline-journal-'));
  file = path.join(directory, 'journal');
});
afterEach(() => rm(directory, { recursive: true }));

const rangeList = fc.array(
  fc.tuple(fc.nat(SIZE - 1), fc.nat(200)).map(([offset, length]) => ({
    offset,
    length: Math.min(length, SIZE - offset),
  })),
  { maxLength: 12 },
);

/** One flag for each byte: whether a range has it. */
function covered(ranges: readonly { offset: number; length: number }[]): string {
  const bytes = Array.from({ length: SIZE }, () => '.');
  for (const { offset, length } of ranges) bytes.fill('#', offset, offset + length);
  return bytes.join('');
}

describe('BlobJournal', () => {
  it('is missing exactly what was not recorded', async () => {
    await fc.assert(
      fc.asyncProperty(rangeList, async (ranges) => {
        await rm(file, { force: true });
        const first = await BlobJournal.open(file, SIZE, SIZE);
        for (const range of ranges) await first.record(range);
        await first.close();
        const again = await BlobJournal.open(file, SIZE, SIZE);
        const missing = again.missing();
        await again.close();
        expect(covered(missing)).toBe(
          covered(ranges).replaceAll('#', 'x').replaceAll('.', '#').replaceAll('x', '.'),
        );
      }),
      { numRuns: 50 },
    );
  });

  it('believes whole lines only, wherever a crash cut it', async () => {
    const journal = await BlobJournal.open(file, SIZE, SIZE);
    await journal.record({ offset: 0, length: 100 });
    await journal.record({ offset: 300, length: 456 });
    await journal.close();
    const text = await readFile(file, 'utf8');
    const full = covered([
      { offset: 0, length: 100 },
      { offset: 300, length: 456 },
    ]);
    for (let cut = 0; cut <= text.length; cut += 1) {
      const ranges = parseJournal(text.slice(0, cut), SIZE, SIZE);
      const claimed = covered(ranges);
      expect([covered([]), covered([{ offset: 0, length: 100 }]), full]).toContain(claimed);
      await writeFile(file, text.slice(0, cut));
      const reopened = await BlobJournal.open(file, SIZE, SIZE);
      await reopened.record({ offset: 200, length: 50 });
      await reopened.close();
      expect(covered(parseJournal(await readFile(file, 'utf8'), SIZE, SIZE))).toBe(
        covered([...ranges, { offset: 200, length: 50 }]),
      );
    }
  });

  it.each([
    ['of another size', 'weldline-download 1 999\n0 100\n', SIZE],
    ['of another format', 'weldline-download 2 1000\n0 100\n', SIZE],
    ['beyond the partial', 'weldline-download 1 1000\n0 100\n', 99],
    ['beyond the blob', 'weldline-download 1 1000\n990 100\n', 2000],
    ['that is no journal', 'weldline-download 1 1000\n0 -100\n', SIZE],
  ])('starts over with a journal %s', async (_name, text, partialBytes) => {
    await writeFile(file, text);
    const journal = await BlobJournal.open(file, SIZE, partialBytes);
    expect(journal.missing()).toEqual([{ offset: 0, length: SIZE }]);
    await journal.close();
  });
});

it('mergeRanges keeps what is covered, in order and apart', () => {
  fc.assert(
    fc.property(rangeList, (ranges) => {
      const merged = mergeRanges(ranges);
      expect(covered(merged)).toBe(covered(ranges));
      for (const [index, range] of merged.entries()) {
        const before = merged[index - 1];
        if (before !== undefined)
          expect(range.offset).toBeGreaterThan(before.offset + before.length);
      }
    }),
  );
});

it('splitRanges cuts without gap or overlap', () => {
  fc.assert(
    fc.property(rangeList, fc.integer({ min: 1, max: 300 }), (ranges, bytesMax) => {
      const merged = mergeRanges(ranges);
      const pieces = splitRanges(merged, bytesMax);
      expect(mergeRanges(pieces)).toEqual(merged);
      expect(pieces.every(({ length }) => length > 0 && length <= bytesMax)).toBe(true);
      const sum = (list: readonly { length: number }[]) =>
        list.reduce((all, { length }) => all + length, 0);
      expect(sum(pieces)).toBe(sum(merged));
    }),
  );
});
