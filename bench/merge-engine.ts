/**
 * Makes the shards of a merge, with or without hashing them on the way, and prints the seconds that
 * took: `node bench/merge-engine.ts hashed|unhashed BASE ADAPTER DIRECTORY`. Without hashing there
 * is no merge to be had: this is only to measure what it costs.
 */
import { join } from 'node:path';
import { chooseResources, MEMORY_BUDGET_BYTES_DEFAULT } from '../engine/merge/resources.ts';
import { ShardFile } from '../engine/merge/shard-file.ts';
import { writeWindows } from '../engine/merge/write-windows.ts';
import { planMerge } from '../engine/plan/plan-merge.ts';
import { compileKernel } from '../kernels/index.ts';
import { openModelDirectory } from '../sources/model-directory.ts';

/** No file is read for the plan: nothing here depends on its digests. */
const DIGEST = '0'.repeat(64);

const [mode, base = '', adapter = '', output = ''] = process.argv.slice(2);
if (mode !== 'hashed' && mode !== 'unhashed') throw new Error(`no mode ${mode}`);

const inputOf = async (directory: string) => ({
  files: await openModelDirectory(directory),
  digest: async () => DIGEST,
});
const plan = await planMerge(await inputOf(base), { id: 'a', ...(await inputOf(adapter)) }, {});
const resources = chooseResources(plan, { memoryBudgetBytes: MEMORY_BUDGET_BYTES_DEFAULT });
const kernel = await compileKernel();
const directory = { files: output, journals: join(output, 'journals') };

const startedAt = performance.now();
for (const shard of plan.shards) {
  const place = { shard, directory, planDigest: DIGEST };
  const file = await ShardFile.open({ ...place, inputs: '', signal: undefined });
  const options = { ...place, plan, roots: { base, a: adapter }, resources, kernel };
  await file.complete(await writeWindows(options, file, mode === 'hashed'));
}
console.log(JSON.stringify({ seconds: (performance.now() - startedAt) / 1000 }));
