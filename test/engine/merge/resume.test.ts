import { writeFileSync } from 'node:fs';
import { open, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mergeShard } from '../../../engine/merge/merge-shard.ts';
import { type Staging, stagingBeside } from '../../../engine/merge/output-directory.ts';
import { resourcesFor } from '../../../engine/merge/resources.ts';
import { partialPath } from '../../../engine/merge/shard-file.ts';
import type { MergeProgress } from '../../../engine/merge/shard-options.ts';
import { PAGE_BYTES } from '../../../engine/merge/windows.ts';
import { type Plan, type PlannedShard, planDigest } from '../../../engine/plan/plan.ts';
import { compileKernel } from '../../../kernels/index.ts';
import {
  type Directories,
  mergeDirectories,
  planDirectories,
  readFiles,
  writeFiles,
} from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';

/** The smallest: some tens of windows in all. */
const WINDOW_BYTES = PAGE_BYTES;

interface Interrupted {
  readonly inputs: Directories;
  readonly plan: Plan;
  readonly output: string;
  readonly staging: Staging;
  readonly shards: readonly [PlannedShard, PlannedShard];
  /** What was reported done when the merge stopped. */
  readonly bytesDone: number;
  readonly expected: Map<string, Buffer>;
}

/** The files of the same merge in one go; the inputs of all tests are the same. */
let undisturbed: Map<string, Buffer> | undefined;

async function mergeUndisturbed(
  root: string,
  inputs: Directories,
  plan: Plan,
): Promise<Map<string, Buffer>> {
  const output = join(root, 'undisturbed');
  await mergeDirectories({ ...inputs, plan, output });
  return readFiles(output);
}

/** A merge of two shards that was stopped after a part of its bytes, and resumed and stopped again. */
async function interrupt(...fractions: number[]): Promise<Interrupted> {
  const root = await temporaryDirectory();
  const inputs = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  await writeFiles(inputs.base, baseFiles(tinyBase({ shards: 2 })));
  const targets = ['self_attn.q_proj', 'mlp.down_proj', 'mlp.up_proj'] as const;
  await writeFiles(inputs.adapter, adapterFiles(tinyAdapter({ targets })));
  const plan = await planDirectories(inputs);
  undisturbed ??= await mergeUndisturbed(root, inputs, plan);

  const output = join(root, 'output');
  let bytesDone = 0;
  for (const fraction of fractions) {
    const controller = new AbortController();
    const merge = mergeDirectories({
      ...inputs,
      plan,
      output,
      windowBytes: WINDOW_BYTES,
      signal: controller.signal,
      onProgress: (progress) => {
        bytesDone = progress.bytesDone;
        if (bytesDone > fraction * progress.bytesTotal) controller.abort(new Error('stopped'));
      },
    });
    await expect(merge).rejects.toThrow('stopped');
  }
  expect(await readdir(root)).not.toContain('output');
  const [first, second] = plan.shards;
  if (first === undefined || second === undefined) throw new Error('the plan has two shards');
  return {
    inputs,
    plan,
    output,
    staging: stagingBeside(output, planDigest(plan)),
    shards: [first, second],
    bytesDone,
    expected: undisturbed,
  };
}

/** Goes on with a merge and compares its files. @returns the steps of its progress */
async function resume(
  { inputs, plan, output, expected }: Interrupted,
  options: { readonly threads?: number; readonly windowBytes?: number } = {},
): Promise<MergeProgress[]> {
  const steps: MergeProgress[] = [];
  await mergeDirectories({
    ...inputs,
    plan,
    output,
    windowBytes: WINDOW_BYTES,
    ...options,
    onProgress: (progress) => steps.push(progress),
  });
  expect(await readFiles(output)).toEqual(expected);
  expect(steps.at(-1)?.bytesDone).toBe(steps.at(-1)?.bytesTotal);
  return steps;
}

function firstStep(steps: readonly MergeProgress[], shard: PlannedShard): number {
  return steps.find((step) => step.shard === shard.file)?.bytesDone ?? Number.NaN;
}

async function flipByte(path: string, offset: number): Promise<void> {
  const file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, offset);
  byte[0] = (byte[0] ?? 0) ^ 1;
  await file.write(byte, 0, 1, offset);
  await file.close();
}

/** How far the journal of a shard says it was written, line by line. */
async function journalled(staging: Staging, shard: PlannedShard): Promise<number[]> {
  const text = await readFile(join(staging.journals, `${shard.file}.jsonl`), 'utf8');
  const lines = text.split('\n').slice(1, -1);
  return lines.map((line) => (JSON.parse(line) as { end: number }).end);
}

test('everything that was reported is kept and not done again', async () => {
  const interrupted = await interrupt(0.3);
  const steps = await resume(interrupted);
  expect(firstStep(steps, interrupted.shards[0])).toBeGreaterThanOrEqual(interrupted.bytesDone);
});

test('a resumed merge may have other threads and other windows', async () => {
  const interrupted = await interrupt(0.3);
  const steps = await resume(interrupted, { threads: 4, windowBytes: 3 * WINDOW_BYTES });
  expect(firstStep(steps, interrupted.shards[0])).toBeGreaterThanOrEqual(interrupted.bytesDone);
});

test('a byte that changed has all done again that was written after the line before it', async () => {
  const interrupted = await interrupt(0.1, 0.2, 0.3);
  const { staging, shards } = interrupted;
  const [first = 0, second = 0, third = 0] = await journalled(staging, shards[0]);
  expect(first).toBeGreaterThan(0);
  expect(second).toBeGreaterThan(first);
  expect(third).toBeGreaterThan(second);
  await flipByte(partialPath(staging, shards[0]), first + 3);
  const steps = await resume(interrupted);
  expect(firstStep(steps, shards[0])).toBe(first);
});

test('a damaged header of an unfinished shard is written again', async () => {
  const interrupted = await interrupt(0.3);
  await flipByte(partialPath(interrupted.staging, interrupted.shards[0]), 12);
  await resume(interrupted);
});

test('a finished shard that changed on disk is done again', async () => {
  const interrupted = await interrupt(0.8);
  const { staging, shards } = interrupted;
  const path = join(staging.files, shards[0].file);
  await flipByte(path, shards[0].size - 1);
  const steps = await resume(interrupted);
  expect(firstStep(steps, shards[0])).toBeLessThan(shards[0].size / 10);
  // What was done of the second shard still counts.
  const before = interrupted.bytesDone;
  expect(firstStep(steps, shards[1])).toBeGreaterThanOrEqual(before);
});

test('a finished shard that did not change is not done again', async () => {
  const interrupted = await interrupt(0.8);
  const [first] = interrupted.shards;
  const steps = await resume(interrupted);
  expect(steps.filter((step) => step.shard === first.file)).toHaveLength(1);
});

test('an unfinished shard of another size is done again whole', async () => {
  const interrupted = await interrupt(0.3);
  const { staging, shards } = interrupted;
  await truncate(partialPath(staging, shards[0]), shards[0].size - 1);
  const steps = await resume(interrupted);
  expect(firstStep(steps, shards[0])).toBeLessThan(shards[0].size / 10);
});

test('a journal whose end is garbled counts up to there', async () => {
  const interrupted = await interrupt(0.1, 0.3);
  const { staging, shards } = interrupted;
  const path = join(staging.journals, `${shards[0].file}.jsonl`);
  const [first = 0] = await journalled(staging, shards[0]);
  const text = await readFile(path, 'utf8');
  await writeFile(path, `${text.slice(0, -30)}\0\0\0\0${text.slice(-26)}`);
  const steps = await resume(interrupted);
  expect(firstStep(steps, shards[0])).toBe(first);
});

test('leftovers of a killed attempt do not become part of the result', async () => {
  const interrupted = await interrupt(0.8);
  const { files } = interrupted.staging;
  await writeFile(join(files, '.config.json.12345.partial'), '{');
  await writeFile(join(files, `${interrupted.shards[0].file}.partial`), 'x');
  await resume(interrupted);
});

test('a journal of another merge is not believed', async () => {
  const interrupted = await interrupt(0.3);
  const { staging, shards } = interrupted;
  const path = join(staging.journals, `${shards[0].file}.jsonl`);
  const text = await readFile(path, 'utf8');
  await writeFile(path, text.replace(/"plan":"../, '"plan":"zz'));
  await expect(resume(interrupted)).rejects.toMatchObject({ code: 'journal.invalid' });
});

test('two attempts at one shard at the same time both succeed', async () => {
  const { inputs, plan, staging, shards, expected } = await interrupt(0.3);
  const kernel = await compileKernel();
  const attempt = (windowPages: number) =>
    mergeShard({
      plan,
      planDigest: planDigest(plan),
      shard: shards[0],
      roots: { base: inputs.base, a: inputs.adapter },
      directory: staging,
      resources: resourcesFor(plan, 2, windowPages * PAGE_BYTES),
      kernel,
    });
  const results = await Promise.all([1, 2, 3, 100].map(attempt));
  expect(new Set(results.map((result) => result.sha256)).size).toBe(1);
  const written = await readFile(join(staging.files, shards[0].file));
  expect(Buffer.compare(written, expected.get(shards[0].file) ?? Buffer.alloc(0))).toBe(0);
  expect(await readdir(staging.files)).toEqual([shards[0].file]);
});

test('a finished merge is found again, and the staging of a run that died late goes away', async () => {
  const interrupted = await interrupt(0.8);
  await resume(interrupted);
  const { inputs, plan, output, staging } = interrupted;
  await writeFiles(staging.files, new Map());
  const again = await mergeDirectories({ ...inputs, plan, output });
  expect(again.existed).toBe(true);
  expect(await readdir(join(output, '..'))).not.toContain(staging.root.split('/').at(-1));
});

test('what was made of an input that changed meanwhile is not used once it is restored', async () => {
  const { inputs, plan, output, shards, expected } = await interrupt(0.1);
  const [first] = shards;
  const path = join(inputs.base, first.file);
  const original = await readFile(path);
  const altered = Buffer.from(original);
  // Finite values of the same size: only the file system can tell that the file was written to.
  altered.fill(0, Math.floor(original.length / 2));
  const merge = mergeDirectories({
    ...inputs,
    plan,
    output,
    windowBytes: WINDOW_BYTES,
    threads: 1,
    onProgress: ({ shard, tensor }) => {
      if (shard === first.file && tensor === '') writeFileSync(path, altered);
    },
  });
  await expect(merge).rejects.toMatchObject({ code: 'merge.input-changed' });
  await writeFile(path, original);
  await mergeDirectories({ ...inputs, plan, output, windowBytes: WINDOW_BYTES });
  expect(await readFiles(output)).toEqual(expected);
});
