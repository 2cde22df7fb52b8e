import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  formatLine,
  type JournalHead,
  parseJournal,
  readJournal,
} from '../../../engine/merge/journal.ts';
import { openJournal } from '../../../engine/merge/shard-file.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';

const HEAD: JournalHead = { journal: 2, plan: 'a'.repeat(64), shard: 'model.safetensors' };

const prefix = fc.record({
  end: fc.nat(),
  sha256: fc.constantFrom('0'.repeat(64), 'a'.repeat(64), '12345678'.repeat(8)),
  inputs: fc.constantFrom('0123456789abcdef', 'fedcba9876543210'),
});
const journal = fc.record({
  prefixes: fc.array(prefix, { maxLength: 12 }),
  isComplete: fc.boolean(),
});

const COMPLETE = { size: 1234, sha256: 'f'.repeat(64) };

function linesOf({ prefixes, isComplete }: { prefixes: object[]; isComplete: boolean }): string[] {
  const lines = [HEAD, ...prefixes, ...(isComplete ? [COMPLETE] : [])];
  return lines.map((line) => formatLine(line as JournalHead));
}

test('what is written is read', () => {
  fc.assert(
    fc.property(journal, (content) => {
      const text = linesOf(content).join('');
      expect(parseJournal(text, 'journal', HEAD)).toEqual({
        prefixes: content.prefixes,
        complete: content.isComplete ? COMPLETE : undefined,
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
      expect(state?.prefixes.length ?? 0).toBe(
        Math.min(content.prefixes.length, Math.max(0, whole.length - 1)),
      );
    }),
  );
});

test('a garbled line does not count, and those around it do', () => {
  const garbled = fc.oneof(
    fc.string().filter((text) => !text.includes('\n')),
    fc.jsonValue().map((value) => JSON.stringify(value)),
    prefix.map((each) => JSON.stringify(each).slice(0, -3)),
    prefix.map((each) => `${JSON.stringify(each)}${JSON.stringify(each)}`),
    prefix.map((each) => JSON.stringify({ ...each, end: -1 })),
    prefix.map((each) => JSON.stringify({ ...each, end: 0.5 })),
    prefix.map((each) => JSON.stringify({ ...each, sha256: each.sha256.slice(1) })),
    prefix.map(({ end, sha256 }) => JSON.stringify({ end, sha256 })),
    fc.constant(JSON.stringify({ size: 1, sha256: 'F'.repeat(64) })),
    fc.constant('\0\0\0\0\0\0\0\0'),
  );
  fc.assert(
    fc.property(journal, garbled, fc.nat(), (content, line, place) => {
      const lines = linesOf(content);
      const at = place % (lines.length + 1);
      const text = [...lines.slice(0, at), `${line}\n`, ...lines.slice(at)].join('');
      const state = parseJournal(text, 'journal', HEAD);
      expect(state?.prefixes).toEqual(content.prefixes);
      expect(state?.complete).toEqual(content.isComplete ? COMPLETE : undefined);
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

test.each(['begun', 'not there'])(
  'attempts that overlap keep the lines of each other in a journal that was %s',
  async (was) => {
    const path = join(await temporaryDirectory(), 'journal');
    const prefixes = [1, 2].map((end) => ({
      end: end * 4096,
      sha256: 'd'.repeat(64),
      inputs: 'i',
    }));
    if (was === 'begun') await (await openJournal(path, HEAD, undefined)).close();
    // Both read it before either opens it.
    const state = await readJournal(path, HEAD);
    const one = await openJournal(path, HEAD, state);
    await one.appendFile(formatLine(prefixes[0]!));
    const other = await openJournal(path, HEAD, state);
    await other.appendFile(formatLine(prefixes[1]!));
    await one.appendFile(formatLine(COMPLETE));
    await Promise.all([one.close(), other.close()]);
    expect(await readJournal(path, HEAD)).toEqual({ prefixes, complete: COMPLETE });
  },
);

test('a line that a crash has cut does not swallow the next one', async () => {
  const path = join(await temporaryDirectory(), 'journal');
  const cut = formatLine(COMPLETE).slice(0, 30);
  await writeFile(path, `${formatLine(HEAD)}${cut}`);
  const journal = await openJournal(path, HEAD, await readJournal(path, HEAD));
  await journal.appendFile(formatLine(COMPLETE));
  await journal.close();
  expect(await readJournal(path, HEAD)).toEqual({ prefixes: [], complete: COMPLETE });
});
