/** The tables of docs/support.md name tests and error codes that there are. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { isErrorCode } from '../../engine/errors.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const text = readFileSync(join(ROOT, 'docs', 'support.md'), 'utf8');
const [tables = '', tests = ''] = text.split('\n## Tests\n');
const named = new Map(
  [...tests.matchAll(/^\| \[(\w)\] \| `(test\/[^`]+)` \|$/gm)].map(([, key, path]) => [
    key!,
    path!,
  ]),
);

/** All codes of an area that errors have, such as `adapter.half-pair`. */
function codesIn(content: string): string[] {
  const areas = 'safetensors|checkpoint|adapter|plan|merge|verify|recipe|cli|side-file';
  const code = new RegExp(`\`((?:${areas})\\.[a-z-]+)\``, 'g');
  return [...content.matchAll(code)].map(([, found]) => found!);
}

test('every test named is a file', () => {
  expect(named.size).toBeGreaterThan(30);
  expect([...named.values()].filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
});

test('every mark in a table is that of a test, and every test is marked somewhere', () => {
  const marks = [...tables.matchAll(/\[(\w)\](?!\()/g)].map(([, mark]) => mark!);
  expect([...new Set(marks)].sort()).toEqual([...named.keys()].sort());
});

test('every error code named is one, and a test of that row expects it', () => {
  const codes = codesIn(tables);
  expect(codes.length).toBeGreaterThan(40);
  expect(codes.filter((code) => !isErrorCode(code))).toEqual([]);
  const unexpected = tables.split('\n').flatMap((line) => {
    const marks = [...line.matchAll(/\[(\w)\](?!\()/g)].map(([, mark]) => named.get(mark!)!);
    const sources = marks.map((path) => readFileSync(join(ROOT, path), 'utf8')).join('\n');
    return codesIn(line)
      .filter((code) => !sources.includes(`'${code}'`))
      .map((code) => `${code}: ${marks.join(', ')}`);
  });
  expect(unexpected).toEqual([]);
});

test('a cell says exact, refused or not tested, and what it claims has a test', () => {
  const claims = tables.split('\n').flatMap((line) => line.split('|').map((cell) => cell.trim()));
  const bare = claims.filter((cell) => /^exact$/.test(cell));
  // Where the tests are in a column of their own, the row has them.
  const rows = tables
    .split('\n')
    .filter((line) => line.split('|').some((c) => c.trim() === 'exact'));
  expect(bare.length).toBeGreaterThan(10);
  expect(rows.filter((row) => !/\[\w\]/.test(row))).toEqual([]);
});
