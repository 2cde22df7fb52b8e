import type { Plan, PlannedTensor } from '../../../engine/plan/plan.ts';
import { planMerge } from '../../../engine/plan/plan-merge.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import { adapterFiles, baseFiles, type TinyModel } from '../../doubles/tiny-model.ts';

/** Plans the merge of an adapter in memory, under the id "a". */
export async function planFor(base: TinyModel, adapter: TinyModel): Promise<Plan> {
  const inputs = memoryFiles('base', baseFiles(base));
  return planMerge(inputs, [{ id: 'a', ...memoryFiles('adapter', adapterFiles(adapter)) }], {});
}

/** The one tensor of a plan that has this name. */
export function tensorOf(plan: Plan, name: string): PlannedTensor {
  const found = plan.shards.flatMap((shard) => shard.tensors).filter((each) => each.name === name);
  if (found.length !== 1 || found[0] === undefined) throw new Error(`${found.length} × ${name}`);
  return found[0];
}
