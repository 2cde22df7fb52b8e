/**
 * The merged checkpoint must answer as the adapter on its base does: the whole road, judged by
 * transformers and PEFT. The models are real: the example of this repository, and SmolLM2-135M.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runOracle } from '../oracle-python.ts';
import { runWeldline } from '../run-weldline.ts';
import { measureAccuracy } from './merge-accuracy.ts';

const root = join(import.meta.dirname, '../..');
const smollm2 = join(root, '.oracle/models/smollm2-135m');
const fixtures = join(root, 'test/fixtures/smollm2');
const tiny = join(root, 'examples/tiny');

/** Importing torch and PEFT alone takes up to a minute on a busy machine. */
const TIMEOUT_MS = 900_000;

interface Answers {
  readonly results: readonly { readonly prompt: string; readonly answer: string }[];
  readonly correct: number;
  readonly total: number;
}

interface Comparison {
  readonly ppm: number;
}

/** Elements that differ from PEFT's merge, per million. */
const DIFFERING_PER_MILLION_MAX = 5;

/** Where elements differ, either side may be the nearer one; all others have one error. */
const MEAN_ERROR_RATIO_MAX = 1 + 1e-9;

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-answers-'));
});

afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

async function merge(base: string, adapter: string, output: string): Promise<string> {
  const target = join(directory, output);
  const result = await runWeldline(
    ['merge', '--base', base, '--adapter', adapter, '--output', target, '--json'],
    { WELDLINE_HOME: join(directory, 'home') },
  );
  expect(result.exitCode, result.stderr).toBe(0);
  return target;
}

async function answer(
  candidates: Readonly<Record<string, string>>,
  evaluations: readonly string[],
): Promise<Record<string, Record<string, Answers>>> {
  const output = await runOracle('answers.py', [
    ...Object.entries(candidates).flatMap(([name, paths]) => ['--candidate', `${name}=${paths}`]),
    ...evaluations.flatMap((path) => ['--eval', path]),
    '--json',
    '-',
  ]);
  return (JSON.parse(output) as { candidates: Record<string, Record<string, Answers>> }).candidates;
}

function answersOf(answers: Answers | undefined): string[] {
  return (answers?.results ?? []).map((result) => result.answer);
}

test(
  'the merged example answers as its adapters on the base do',
  async () => {
    const base = join(tiny, 'base');
    const adapters = ['calculator', 'extractor'] as const;
    const candidates: Record<string, string> = { base };
    for (const adapter of adapters) {
      const path = join(tiny, 'adapters', adapter);
      candidates[adapter] = `${base}:${path}`;
      candidates[`${adapter}-merged`] = await merge(base, path, adapter);
    }
    const evaluations = adapters.map((adapter) => join(tiny, 'eval', `${adapter}.jsonl`));
    const results = await answer(candidates, evaluations);
    for (const adapter of adapters) {
      const onBase = results[adapter]?.[adapter];
      const merged = results[`${adapter}-merged`]?.[adapter];
      expect(onBase?.correct).toBeGreaterThanOrEqual(0.9 * (onBase?.total ?? Infinity));
      expect(results['base']?.[adapter]?.correct).toBeLessThan(0.2 * (onBase?.total ?? 0));
      expect(answersOf(merged)).toEqual(answersOf(onBase));
    }
  },
  TIMEOUT_MS,
);

test(
  'SmolLM2 merged answers as its adapters on the base do, and equals the merge of PEFT',
  async () => {
    const candidates: Record<string, string> = {};
    for (const adapter of ['a', 'b'] as const) {
      const path = join(fixtures, `adapter-${adapter}`);
      candidates[adapter] = `${smollm2}:${path}`;
      candidates[`${adapter}-merged`] = await merge(smollm2, path, `smollm2-${adapter}`);
    }
    const evaluations = [join(fixtures, 'eval-a.jsonl'), join(fixtures, 'eval-b.jsonl')];
    const results = await answer(candidates, evaluations);
    for (const adapter of ['a', 'b'] as const) {
      const evaluation = `eval-${adapter}`;
      const onBase = results[adapter]?.[evaluation];
      const merged = results[`${adapter}-merged`]?.[evaluation];
      expect(onBase?.correct).toBe(onBase?.total);
      expect(answersOf(merged)).toEqual(answersOf(onBase));
    }

    const peft = join(directory, 'peft');
    const adapter = join(fixtures, 'adapter-a');
    await runOracle('peft_merge.py', ['--base', smollm2, '--adapter', adapter, '--out', peft]);
    const merged = candidates['a-merged'] ?? '';
    const comparison = JSON.parse(
      await runOracle('compare.py', [peft, merged, '--json', '-']),
    ) as Comparison;
    expect(comparison.ppm).toBeLessThanOrEqual(DIFFERING_PER_MILLION_MAX);
    const accuracy = await measureAccuracy({ base: smollm2, adapter, ours: merged, peft });
    const { elements, differing, unexplained, oursMeanError, peftMeanError } = accuracy;
    expect(elements).toBeGreaterThan(100_000_000);
    expect((differing / elements) * 1e6).toBeLessThanOrEqual(DIFFERING_PER_MILLION_MAX);
    expect(unexplained).toBe(0);
    expect(oursMeanError / peftMeanError).toBeLessThanOrEqual(MEAN_ERROR_RATIO_MAX);
  },
  TIMEOUT_MS,
);
