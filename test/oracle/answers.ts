/** Merges by the command, as a user would, and asks the results: what the answer tests share. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect } from 'vitest';
import { runOracle } from '../oracle-python.ts';
import { runWeldline } from '../run-weldline.ts';

const root = join(import.meta.dirname, '../..');

/** What the tests are about: the example of this repository, and SmolLM2-135M with its adapters. */
export const TINY = join(root, 'examples/tiny');
export const SMOLLM2 = join(root, '.oracle/models/smollm2-135m');
export const SMOLLM2_FIXTURES = join(root, 'test/fixtures/smollm2');

/** Importing torch and PEFT alone takes up to a minute on a busy machine. */
export const TIMEOUT_MS = 900_000;

export interface Answers {
  readonly results: readonly { readonly prompt: string; readonly answer: string }[];
  readonly correct: number;
  readonly total: number;
}

let directory: string;

/** Makes a directory for the outputs of a test file, and removes it after its tests. */
export function useOutputs(): (name: string) => string {
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weldline-answers-'));
  });
  afterAll(async () => {
    await rm(directory, { recursive: true, force: true });
  });
  return (name) => join(directory, name);
}

/** @returns the directory of the merged checkpoint */
export async function merge(
  base: string,
  adapters: readonly string[],
  output: string,
  options: readonly string[] = [],
): Promise<string> {
  const target = join(directory, output);
  const named = adapters.flatMap((adapter) => ['--adapter', adapter]);
  const result = await runWeldline(
    ['merge', '--base', base, ...named, '--output', target, ...options, '--json'],
    { WELDLINE_HOME: join(directory, 'home') },
  );
  expect(result.exitCode, result.stderr).toBe(0);
  return target;
}

/**
 * @param candidates by name: the path of a model, or `model:adapter` for an adapter on its base
 * @returns answers by candidate and by the name of the evaluation file
 */
export async function answer(
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

export function answersOf(answers: Answers | undefined): string[] {
  return (answers?.results ?? []).map((result) => result.answer);
}
