import { describe, expect, it } from 'vitest';
import { LineSplitter } from '../../tools/line-splitter.ts';

/** The lines of `text`, which comes in pieces of `size` bytes. */
function split(text: string, size: number, lineLengthMax = 100): string[] {
  const splitter = new LineSplitter(lineLengthMax);
  const bytes = Buffer.from(text);
  const lines: string[] = [];
  for (let start = 0; start < bytes.length; start += size) {
    lines.push(...splitter.push(bytes.subarray(start, start + size)));
  }
  return [...lines, ...splitter.end()];
}

describe('LineSplitter', () => {
  it.each([1, 2, 3, 7, 1000])('finds the same lines in pieces of %i bytes', (size) => {
    expect(split('größe\r\n\r\n1%\r2%\r\n\n漢字 🙂\nend', size)).toEqual([
      ...['größe', '', '1%', '2%', '', '漢字 🙂', 'end'],
    ]);
    expect(split('a\r', size)).toEqual(['a']);
    expect(split('', size)).toEqual([]);
  });

  it.each([1, 4, 1000])('cuts long lines off, and finds the next one, in pieces of %i', (size) => {
    expect(split(`${'x'.repeat(50)}\nshort\n${'y'.repeat(30)}`, size, 10)).toEqual([
      ...['x'.repeat(10), 'short', 'y'.repeat(10)],
    ]);
  });
});
