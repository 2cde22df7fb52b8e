import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  formatLine,
  isCovered,
  type JournalHead,
  joinRanges,
  parseJournal,
} from '../../../engine/merge/journal.ts';

const HEAD: JournalHead = { journal: 1, plan: 'a'.repeat(64), shard: 'model.safetensors' };

const range = fc.record({
  tensor: fc.constantFrom('model.norm.weight', 'lm_head.weight', 'größe'),
  begin: fc.nat(),
  end: fc.nat(),
  crc32: fc.nat(),
  inputs: fc.constantFrom('0123456789abcdef', 'fedcba9876543210'),
});
const journal = fc.record({
  ranges: fc.array(range, { maxLength: 12 }),
  isComplete: fc.boolean(),
});

const COMPLETE = { size: 1234, sha256: 'f'.repeat(64) };

function linesOf({ ranges, isComplete }: { ranges: object[]; isComplete: boolean }): string[] {
  const lines = [HEAD, ...ranges, ...(isComplete ? [COMPLETE] : [])];
  return lines.map((line) => formatLine(line as JournalHead));
}

test('what is written is read', () => {
  fc.assert(
    fc.property(journal, (content) => {
      const text = linesOf(content).join('');
      expect(parseJournal(text, 'journal', HEAD)).toEqual({
        ranges: content.ranges,
        complete: content.isComplete ? COMPLETE : undefined,
        soundBytes: Buffer.byteLength(text),
      });
    }),
  );
});

test('of a journal that was cut, the whole lines count and no others', () => {
  fc.assert(
    fc.property(journal, fc.double({ min: 0, max: 1, noNaN: true }), (content, fraction) => {
      const lines = linesOf(content);
      const bytes = Buffer.from(lines.join(''));
      const cut = bytes.subarray(0, Math.floor(fraction * bytes.length));
      const state = parseJournal(cut.toString('utf8'), 'journal', HEAD);
      const whole = lines.filter(
        (_line, index) => Buffer.byteLength(lines.slice(0, index + 1).join('')) <= cut.length,
      );
      expect(state?.ranges.length ?? 0).toBe(
        Math.min(content.ranges.length, Math.max(0, whole.length - 1)),
      );
      expect(state?.soundBytes ?? 0).toBe(Buffer.byteLength(whole.join('')));
    }),
  );
});

test('a garbled line and what follows it do not count', () => {
  const garbled = fc.oneof(
    fc.string().filter((text) => !text.includes('\n')),
    fc.jsonValue().map((value) => JSON.stringify(value)),
    range.map((each) => JSON.stringify(each).slice(0, -3)),
    range.map((each) => `${JSON.stringify(each)}${JSON.stringify(each)}`),
    range.map((each) => JSON.stringify({ ...each, begin: -1 })),
    range.map((each) => JSON.stringify({ ...each, end: 0.5 })),
    range.map(({ tensor, begin, end }) => JSON.stringify({ tensor, begin, end })),
    fc.constant(JSON.stringify({ size: 1, sha256: 'F'.repeat(64) })),
    fc.constant('\0\0\0\0\0\0\0\0'),
  );
  fc.assert(
    fc.property(journal, garbled, fc.nat(), (content, line, place) => {
      const lines = linesOf(content);
      const at = 1 + (place % lines.length);
      const text = [...lines.slice(0, at), `${line}\n`, ...lines.slice(at)].join('');
      const state = parseJournal(text, 'journal', HEAD);
      expect(state?.ranges).toEqual(content.ranges.slice(0, at - 1));
      expect(state?.soundBytes).toBe(Buffer.byteLength(lines.slice(0, at).join('')));
    }),
    { numRuns: 300 },
  );
});

test('no text at all makes the parser throw, save another merge', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      expect(
        parseJournal(`${Buffer.from(bytes).toString('utf8')}\n`, 'journal', HEAD),
      ).toBeUndefined();
    }),
  );
  const other = formatLine({ ...HEAD, plan: 'b'.repeat(64) });
  expect(() => parseJournal(other, 'journals/x', HEAD)).toThrow(
    /journals\/x belongs to another merge/,
  );
  const shard = formatLine({ ...HEAD, shard: 'other.safetensors' });
  expect(() => parseJournal(shard, 'journals/x', HEAD)).toThrow(/another merge/);
});

test('joined ranges cover the same bytes as the ranges, and are disjoint', () => {
  const small = fc
    .tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1, max: 12 }))
    .map(([begin, length]) => ({ begin, end: begin + length }));
  fc.assert(
    fc.property(fc.array(small, { maxLength: 12 }), small, (ranges, asked) => {
      const bytes = new Set(ranges.flatMap(({ begin, end }) => spread(begin, end)));
      const joined = joinRanges(ranges);
      expect(joined.flatMap(({ begin, end }) => spread(begin, end))).toEqual(
        [...bytes].sort((a, b) => a - b),
      );
      for (const [index, { begin }] of joined.entries()) {
        if (index > 0) expect(begin).toBeGreaterThan(joined[index - 1]?.end ?? 0);
      }
      const covered = spread(asked.begin, asked.end).every((byte) => bytes.has(byte));
      expect(isCovered(joined, asked)).toBe(covered);
    }),
  );
});

function spread(begin: number, end: number): number[] {
  return Array.from({ length: end - begin }, (_, index) => begin + index);
}
