/** The sizing tables of docs/production.md follow from the formats and from the bench's results. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parseEnvironmentFile, readText, variablesRead } from '../deploy/compose-project.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const text = readFileSync(join(ROOT, 'docs/production.md'), 'utf8');
const bench = readFileSync(join(ROOT, 'bench/results/2026-11-28.md'), 'utf8');

/** Parameters, and of them those of embeddings and head. */
const MODELS = [
  { parameters: 6.74e9, vocabulary: 2 * 32_000 * 4096 },
  { parameters: 70.6e9, vocabulary: 2 * 128_256 * 8192 },
  { parameters: 405.9e9, vocabulary: 2 * 128_256 * 16_384 },
];
const BASE_GB = MODELS.map(({ parameters }) => (2 * parameters) / 1e9);
/** Of the checkpoint of the bench. */
const BENCH_GB = 2.2;

/** The rows of the table whose head begins so. */
function rowsOf(head: string): ReadonlyMap<string, readonly string[]> {
  const [, table = ''] = text.split(`\n| ${head}`);
  const lines = table.split('\n\n')[0]?.split('\n').slice(2) ?? [];
  const cells = lines.map((line) => line.split('|').map((cell) => cell.trim()));
  return new Map(cells.map(([, name = '', ...rest]) => [name, rest.slice(0, -1)]));
}

/** Median seconds of the bench's row, in the section of a case. */
function secondsOf(section: string, contestant: string): number {
  const part = bench.split(`\n## ${section}:`)[1]?.split('\n## ')[0] ?? '';
  const row = part.split('\n').find((line) => line.startsWith(`| ${contestant} `)) ?? '';
  return Number(row.split('|')[2]);
}

test('the sizes of files follow from their formats', () => {
  const rows = rowsOf('disk, GB');
  const q8 = MODELS.map(({ parameters }) => (parameters * 34) / 32 / 1e9);
  const q4 = MODELS.map(({ parameters }) => (parameters * 4.89) / 8 / 1e9);
  const awq = MODELS.map(
    ({ parameters, vocabulary }) => (((parameters - vocabulary) * 4.16) / 8 + 2 * vocabulary) / 1e9,
  );
  const columns = [BASE_GB, BASE_GB, BASE_GB, q8, q4, awq];
  const all = MODELS.map((_, index) => columns.reduce((sum, each) => sum + (each[index] ?? 0), 0));
  expect([...rows.values()]).toEqual([...columns, all].map((each) => each.map(whole)));
});

test('the memory is what weldline keeps free', () => {
  const source = readFileSync(join(ROOT, 'activities/quality-activities.ts'), 'utf8');
  expect(source).toContain('{ evaluate: 2.5, convert: 1.5, calibrate: 3 }');
  const rows = [...rowsOf('memory, GB').values()].slice(1);
  expect(rows).toEqual([1.5, 2.5, 3].map((factor) => BASE_GB.map((base) => whole(factor * base))));
});

test('the times are the rates of the bench', () => {
  const cold = secondsOf('r16-cold', 'weldline merge');
  const hash =
    secondsOf('r16-warm', 'weldline merge, base new') - secondsOf('r16-warm', 'weldline merge');
  const rank64 = secondsOf('r64-cold', 'weldline merge');
  const release = secondsOf('release', 'weldline release');
  expect(text).toContain(`(${cold.toFixed(2)} s for 2.2 GB, nothing cached)`);
  expect(text).toContain(`(${release.toFixed(2)} s, the start of everything included`);
  const rows = [...rowsOf('time').values()];
  expect(rows).toEqual(
    [hash, cold, rank64, release].map((seconds) => [
      `${whole(seconds)} s`,
      ...BASE_GB.map((base) => duration((seconds / BENCH_GB) * base)),
    ]),
  );
});

test('every variable that is named is read, or a setting of the compose project', () => {
  const named = new Set(text.match(/\b[A-Z]+(_[A-Z0-9]+)+\b/g));
  expect(named.size).toBeGreaterThan(10);
  const known = new Set([
    ...[...variablesRead(), ...parseEnvironmentFile(readText('.env.example')).keys()],
    // Of the server's container, and a profile's file.
    ...['NAMESPACE_RETENTION', 'NUM_HISTORY_SHARDS', 'TEMPORAL_CONFIG_FILE'],
  ]);
  expect([...named].filter((name) => !known.has(name))).toEqual([]);
});

const whole = (value: number): string => value.toFixed(0);

/** To two digits, in the largest unit that it has. */
function duration(seconds: number): string {
  if (seconds < 60) return `${whole(seconds)} s`;
  const minutes = seconds / 60;
  if (minutes < 60) return `${minutes < 10 ? minutes.toFixed(1) : whole(minutes)} min`;
  return `${(minutes / 60).toFixed(1)} h`;
}
