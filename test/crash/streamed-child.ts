/**
 * Carries out the stages of a release up to its verification in a process of its own, for tests that
 * kill it or give it a small disk. Prints its process id first, and what came of it last.
 *
 *     node streamed-child.ts RECIPE
 */
import { writeSync } from 'node:fs';
import { readFile, statfs } from 'node:fs/promises';
import { MockActivityEnvironment } from '@temporalio/testing';
import type { Dependencies } from '../../activities/dependencies.ts';
import { createInputActivities } from '../../activities/input-activities.ts';
import { MemorySlots } from '../../activities/memory-slots.ts';
import { createMergeActivities } from '../../activities/merge-activities.ts';
import { readEnvironment } from '../../config/environment.ts';
import { loadRecipe } from '../../config/recipe.ts';
import type { CompletedShard } from '../../engine/merge/journal.ts';
import { MEMORY_BUDGET_BYTES_DEFAULT } from '../../engine/merge/resources.ts';
import { createLogger } from '../../workers/logger.ts';
import { modelAccess } from '../../workers/model-access.ts';

export interface StreamedReport {
  readonly artefact: string;
  readonly directory: string;
  readonly shards: readonly CompletedShard[];
  readonly rowsRecomputed: number;
  /** Bytes of the disk that were in use at most, as far as was looked. */
  readonly diskBytesPeak: number;
  /** Most memory that the process has had, and what it had when it began to plan. */
  readonly memoryBytesPeak: number;
  readonly memoryBytesBefore: number;
}

const print = (line: object): void => void writeSync(1, `${JSON.stringify(line)}\n`);

const [recipePath] = process.argv.slice(2);
if (recipePath === undefined) throw new Error('usage: streamed-child.ts RECIPE');
const environment = readEnvironment();
// Those that the stages need: loading all takes seconds.
const dependencies: Dependencies = {
  home: environment.home,
  access: modelAccess(environment),
  threads: environment.threads,
  memoryBudgetBytes: environment.memoryBudgetBytes,
  publishing: environment,
  tools: environment,
  identity: environment,
  place: { queues: {} },
  memory: new MemorySlots(MEMORY_BUDGET_BYTES_DEFAULT),
};
const activities = {
  ...createInputActivities(dependencies),
  ...createMergeActivities(dependencies),
};
print({ pid: process.pid });
const { recipe, digest } = await loadRecipe(recipePath);
const context = { recipe, recipeDigest: digest };

let diskBytesPeak = 0;
async function lookAtDisk(): Promise<void> {
  const { blocks, bfree, bsize } = await statfs(environment.home);
  diskBytesPeak = Math.max(diskBytesPeak, (blocks - bfree) * bsize);
}

async function run<T>(work: () => Promise<T>): Promise<T> {
  const activity = new MockActivityEnvironment(undefined, { logger: createLogger('error') });
  activity.on('heartbeat', () => void lookAtDisk());
  const result = (await activity.run(work)) as T;
  await lookAtDisk();
  return result;
}

const inputs = await run(() => activities.resolveInputs(context));
const adapter = await run(() => activities.fetchInput(inputs.adapter));
await run(() => activities.preflight(context, inputs, adapter));
const base = await run(() => activities.fetchInput(inputs.base));
const roots = { base, [recipe.adapters[0].id]: adapter };
const memoryBytesBefore = process.memoryUsage.rss();
const plan = await run(() => activities.plan(context, inputs, roots));
const { digest: planDigest, streamed } = plan;
const shards: CompletedShard[] = [];
for (let shard = 0; shard < plan.shards; shard++) {
  shards.push(await run(() => activities.mergeShard({ planDigest, shard, roots, streamed })));
}
const { directory } = await run(() =>
  activities.seal({ ...context, inputs, planDigest, roots, shards }),
);
const { rowsRecomputed } = await run(() => activities.verify(planDigest, roots, streamed));
// Not the resource usage: a process inherits its parent's peak.
const [, peak] = /VmHWM:\s+(\d+) kB/.exec(await readFile('/proc/self/status', 'utf8')) ?? [];
const memoryBytesPeak = Number(peak) * 1024;
const { artefact } = inputs;
print({
  artefact,
  directory,
  shards,
  rowsRecomputed,
  diskBytesPeak,
  memoryBytesPeak,
  memoryBytesBefore,
} satisfies StreamedReport);
