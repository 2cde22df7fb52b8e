/**
 * Makes the shards of a merge, with all of its parts or without some, and prints what that took:
 *
 *     node bench/merge-engine.ts hashed|unhashed|copied BASE ADAPTER DIRECTORY [KERNEL]
 *
 * `copied` leaves out the arithmetic, and the hashing too. Only `hashed` makes a merge: the others
 * are there to measure what the parts cost.
 */
import { join } from 'node:path';
import { chooseResources, MEMORY_BUDGET_BYTES_DEFAULT } from '../engine/merge/resources.ts';
import { ShardFile } from '../engine/merge/shard-file.ts';
import { writeWindows } from '../engine/merge/write-windows.ts';
import type { PlannedShard } from '../engine/plan/plan.ts';
import { planMerge } from '../engine/plan/plan-merge.ts';
import { compileKernel, type KernelKind } from '../kernels/index.ts';
import { openModelDirectory } from '../sources/model-directory.ts';

/** No file is read for the plan: nothing here depends on its digests. */
const DIGEST = '0'.repeat(64);

const [mode = '', base = '', adapter = '', output = '', kind] = process.argv.slice(2);
if (!['hashed', 'unhashed', 'copied'].includes(mode)) throw new Error(`no mode ${mode}`);

const inputOf = async (directory: string) => ({
  files: await openModelDirectory(directory),
  digest: async () => DIGEST,
});
const planned = await planMerge(
  await inputOf(base),
  [{ id: 'a', ...(await inputOf(adapter)) }],
  {},
);
const shards = mode === 'copied' ? planned.shards.map(withoutDeltas) : planned.shards;
const plan = { ...planned, shards };
const resources = chooseResources(plan, { memoryBudgetBytes: MEMORY_BUDGET_BYTES_DEFAULT });
const kernel = await compileKernel(kind === undefined ? {} : { kind: kind as KernelKind });
const directory = { files: output, journals: join(output, 'journals') };

const startedAt = performance.now();
const cpuBefore = process.cpuUsage();
for (const shard of shards) {
  const place = { shard, directory, planDigest: DIGEST };
  const file = await ShardFile.open({ ...place, inputs: '', signal: undefined });
  const options = { ...place, plan, roots: { base, a: adapter }, resources, kernel };
  await file.complete(await writeWindows(options, file, mode === 'hashed'));
}
const cpu = process.cpuUsage(cpuBefore);
const result: EngineRun = {
  seconds: (performance.now() - startedAt) / 1000,
  userSeconds: cpu.user / 1e6,
  systemSeconds: cpu.system / 1e6,
};
console.log(JSON.stringify(result));

/** What is printed. */
export interface EngineRun {
  readonly seconds: number;
  readonly userSeconds: number;
  readonly systemSeconds: number;
}

function withoutDeltas({ tensors, ...shard }: PlannedShard): PlannedShard {
  return { ...shard, tensors: tensors.map(({ deltas: _, ...tensor }) => tensor) };
}
