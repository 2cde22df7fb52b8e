import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type ErrorCode, WeldlineError } from '../../../engine/errors.ts';
import type { MergeOptions } from '../../../engine/plan/plan.ts';
import { mergeDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  baseFiles,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';

export interface Inputs {
  readonly base: TinyModel;
  readonly adapter: TinyModel;
}

/** One way in which inputs can be wrong. */
export interface BadInput {
  /** What is wrong, for the name of the test. */
  readonly what: string;
  readonly code: ErrorCode;
  /** What the message must name: the file, the tensor, the key. */
  readonly names: readonly string[];
  /** Spoils sound inputs: a base in BF16 and an adapter of four pairs. */
  readonly spoil: (inputs: Inputs) => void;
  readonly options?: MergeOptions;
}

/** Messages are read in a terminal: some sentences, not a page. */
const MESSAGE_LENGTH_MAX = 600;

/** Runs a merge that must fail, and checks that nothing is left that looks like a result. */
export async function expectRefusal(bad: BadInput): Promise<void> {
  const root = await temporaryDirectory();
  const inputs = { base: tinyBase(), adapter: tinyAdapter() };
  bad.spoil(inputs);
  const base = join(root, 'base');
  const adapter = join(root, 'adapter');
  await writeFiles(base, baseFiles(inputs.base));
  await writeFiles(adapter, adapterFiles(inputs.adapter));
  const output = join(root, 'output');
  const merge = mergeDirectories({ base, adapter, output, options: bad.options ?? {} });
  const error = await merge.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expectError(error, bad.code, bad.names);
  await expectNoResult(root, output);
}

export function expectError(error: unknown, code: ErrorCode, names: readonly string[]): void {
  if (!(error instanceof WeldlineError)) throw error ?? new Error(`${code} was expected`);
  expect(`${error.code}: ${error.message}`).toMatch(new RegExp(`^${code}: `));
  for (const name of names) expect(error.message).toContain(name);
  expect(error.message.length).toBeLessThan(MESSAGE_LENGTH_MAX);
}

export async function expectNoResult(root: string, output: string): Promise<void> {
  expect(existsSync(output)).toBe(false);
  const everything = await readdir(root, { recursive: true });
  expect(everything.filter((path) => path.endsWith('weldline.json'))).toEqual([]);
}
