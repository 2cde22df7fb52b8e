import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { digestOfFile } from '../../sources/open-input.ts';
import { memoryFiles, type RecordedRead } from '../doubles/memory-files.ts';
import { testBytes } from '../hub-server/test-bytes.ts';

const PIECE_BYTES = 4 * 1024 * 1024;

function filesOf(bytes: Buffer, mayRead?: (read: RecordedRead) => boolean) {
  return memoryFiles('memory', new Map([['weights', bytes]]), mayRead);
}

describe('digestOfFile', () => {
  it.each([0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 9_000_001])(
    'reads all of %i bytes, each once',
    async (size) => {
      const bytes = testBytes(size);
      const { files, reads, openCount } = filesOf(bytes);
      let counted = 0;
      const onBytes = (count: number) => {
        counted += count;
      };
      const expected = createHash('sha256').update(bytes).digest('hex');
      expect(await digestOfFile(files, 'weights', { onBytes })).toBe(expected);
      expect(counted).toBe(size);
      expect(reads.reduce((sum, { length }) => sum + length, 0)).toBe(size);
      expect(openCount()).toBe(0);
    },
  );

  it('fails as reading does, and closes the file', async () => {
    const isFirst = ({ offset }: RecordedRead) => offset === 0;
    const { files, openCount } = filesOf(testBytes(3 * PIECE_BYTES), isFirst);
    await expect(digestOfFile(files, 'weights', {})).rejects.toThrow();
    expect(openCount()).toBe(0);
  });

  it('stops with the reason of its signal', async () => {
    const stop = new AbortController();
    const { files, openCount } = filesOf(testBytes(3 * PIECE_BYTES));
    const onBytes = () => stop.abort(new Error('by a person'));
    const digest = digestOfFile(files, 'weights', { signal: stop.signal, onBytes });
    await expect(digest).rejects.toThrow('by a person');
    expect(openCount()).toBe(0);
  });
});
