/**
 * Merges the first shard of a model again and again, in a process of its own: for each line of
 * standard input (`Round` as JSON) once, into the staging directory that it names. Answers with the
 * shard's digest.
 *
 *     node overlapping-child.ts BASE ADAPTER
 */
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { mergeShard } from '../../../engine/merge/merge-shard.ts';
import { stagingAt } from '../../../engine/merge/output-directory.ts';
import { resourcesFor } from '../../../engine/merge/resources.ts';
import { PAGE_BYTES } from '../../../engine/merge/windows.ts';
import { planDigest } from '../../../engine/plan/plan.ts';
import { compileKernel } from '../../../kernels/index.ts';
import { planDirectories } from '../../doubles/merge-directories.ts';

export interface Round {
  readonly staging: string;
  readonly delayMs: number;
  readonly windowPages: number;
}

const [base = '', adapter = ''] = process.argv.slice(2);
const plan = await planDirectories({ base, adapter });
const [shard] = plan.shards;
if (shard === undefined) throw new Error('usage: overlapping-child.ts BASE ADAPTER');
const kernel = await compileKernel();
process.stdout.write('ready\n');
for await (const line of createInterface({ input: process.stdin })) {
  const { staging, delayMs, windowPages } = JSON.parse(line) as Round;
  await sleep(delayMs);
  const { sha256 } = await mergeShard({
    plan,
    planDigest: planDigest(plan),
    shard,
    roots: { base, a: adapter },
    directory: stagingAt(staging),
    resources: resourcesFor(plan, 1, windowPages * PAGE_BYTES),
    kernel,
  });
  process.stdout.write(`${sha256}\n`);
}
