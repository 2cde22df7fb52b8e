/** What docs/evaluation.md says of signals, figures and matchers is so. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import {
  evaluate,
  MATCHERS,
  MAX_DROP_DEFAULT,
  NEW_TOKENS_DEFAULT,
  PERPLEXITY_RISE_MAX_DEFAULT,
} from '../../config/evaluate-schema.ts';
import { bootstrapDrop } from '../../evaluation/gate/bootstrap-drop.ts';
import { smallestDropSeen } from '../../evaluation/gate/detectable-drop.ts';
import {
  KL_OF_MERGED_MAX,
  KL_OF_MERGED_MAX_BFLOAT16,
} from '../../evaluation/gate/judge-distributions.ts';
import { GATE_SIGNALS } from '../../evaluation/gate-decision.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const text = readFileSync(join(ROOT, 'docs', 'evaluation.md'), 'utf8');

/** The section under a heading, its lines joined. */
function section(heading: string): string {
  const found = text.split('\n## ').find((each) => each.startsWith(`${heading}\n`));
  if (found === undefined) throw new Error(`no section ${heading}`);
  return found.slice(heading.length);
}

const rowsOf = (content: string): string[][] =>
  content
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .map((cells) => cells.slice(1, -1));

test('every signal has a row, and there is no other', () => {
  const [, ...rows] = rowsOf(section('Signals'));
  expect(rows.map(([signal]) => signal?.replaceAll('`', '')).toSorted()).toEqual(
    [...GATE_SIGNALS].toSorted(),
  );
});

test('the smallest drops are those of the formula', () => {
  const [prompts, ...rows] = rowsOf(section('How many prompts'));
  const counts = prompts!.slice(1).map(Number);
  const shownFor = (gainedShare: number) =>
    counts.map((count) => {
      const noise = { dropMax: MAX_DROP_DEFAULT, gainedShare, rightShare: 1 };
      return `${((smallestDropSeen(count, noise) ?? 1) * 100).toFixed(1)} %`;
    });
  expect(rows.map((row) => row.slice(1))).toEqual([shownFor(0), shownFor(0.05)]);
});

test('the limits are those of the gate', () => {
  const lines = section('How the gate decides').replaceAll('\n', ' ');
  expect(lines).toContain(
    `more than ${KL_OF_MERGED_MAX} fails (${KL_OF_MERGED_MAX_BFLOAT16} where`,
  );
  expect(lines).toContain(`(default ${PERPLEXITY_RISE_MAX_DEFAULT}, a tenth)`);
  expect(lines).toContain('15 right is within chance and 14 is not');
  const low = (lost: number) => bootstrapDrop({ prompts: 20, lost, gained: 0 }).low;
  expect(low(5)).toBeLessThanOrEqual(MAX_DROP_DEFAULT);
  expect(low(6)).toBeGreaterThan(MAX_DROP_DEFAULT);
  expect(text).toContain(`\`max_new_tokens\` (default ${NEW_TOKENS_DEFAULT})`);
});

test('every matcher has a row', () => {
  const rows = rowsOf(section('Suites'));
  for (const matcher of MATCHERS) {
    expect(rows.filter(([name]) => name?.startsWith(`\`${matcher}\``))).toHaveLength(1);
  }
});

test('the recipes are some', () => {
  const [whole = '', endpoint = ''] = [...text.matchAll(/```yaml\n([\s\S]*?)```/g)].map(
    ([, yaml]) => yaml,
  );
  const given = parse(whole) as { evaluate: object };
  expect(evaluate.safeParse(given.evaluate).error).toBeUndefined();
  const served = { ...given.evaluate, ...(parse(endpoint) as object) };
  expect(Object.keys(served)).toContain('endpoint');
  expect(evaluate.safeParse(served).error).toBeUndefined();
});
