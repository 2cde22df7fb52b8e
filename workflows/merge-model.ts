import {
  CancellationScope,
  CancelledFailure,
  continueAsNew,
  patched,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { Place, PlanReference, Roots } from '../activities/types.ts';
import type { CompletedShard } from '../engine/merge/journal.ts';
import { mergeStatusQuery } from './messages.ts';
import { longWork } from './options.ts';
import { activitiesAt } from './placement.ts';

export interface MergeInput {
  readonly plan: PlanReference;
  readonly roots: Roots;
  readonly place?: Place;
  /** In runs of earlier versions, instead of the place. */
  readonly taskQueue?: string;
  readonly parallelShards: number;
  readonly heartbeatTimeoutMs: number;
  readonly threads?: number | undefined;
  readonly memoryBudgetBytes?: number | undefined;
  /** The first shards of the plan, where earlier runs of this workflow have merged them. */
  readonly done?: readonly CompletedShard[];
}

/**
 * Merges all shards of a plan, some at a time, one activity each. A history that grows long is left
 * behind: shards under way are finished, and a new run of the same workflow goes on with the rest.
 */
export async function mergeModel(input: MergeInput): Promise<CompletedShard[]> {
  const { plan, roots, taskQueue, threads, memoryBudgetBytes, done: before = [] } = input;
  const earlier = taskQueue === undefined ? {} : { merge: taskQueue };
  const place = input.place ?? { queues: earlier };
  const { mergeShard } = activitiesAt(place, 'merge', longWork(input.heartbeatTimeoutMs));
  const shards: CompletedShard[] = [...before];
  let shardsDone = before.length;
  let bytesDone = before.reduce((sum, { size }) => sum + size, 0);
  setHandler(mergeStatusQuery, () => ({
    shardsTotal: plan.shards,
    shardsDone,
    bytesTotal: plan.bytesTotal,
    bytesDone,
  }));

  let next = before.length;
  const mergeNext = async (): Promise<void> => {
    while (next < plan.shards && !isHistoryLong()) {
      const shard = next++;
      const limits = {
        ...(threads === undefined ? {} : { threads }),
        ...(memoryBudgetBytes === undefined ? {} : { memoryBudgetBytes }),
      };
      const { digest: planDigest, streamed } = plan;
      const streams = streamed === undefined ? {} : { streamed };
      const done = await mergeShard.executeWithOptions(
        { summary: `shard ${shard + 1} of ${plan.shards}` },
        [{ planDigest, shard, roots, ...streams, ...limits }],
      );
      shards[shard] = done;
      shardsDone++;
      bytesDone += done.size;
    }
  };
  const lanes = Math.min(input.parallelShards, plan.shards - next);
  await Promise.all(Array.from({ length: lanes }, mergeNext));
  if (next === plan.shards) return shards;
  // Every lane has ended: what was begun is done, and a new run would not hear of a cancellation.
  if (CancellationScope.current().consideredCancelled) {
    throw new CancelledFailure('The merge was cancelled between two runs');
  }
  return continueAsNew<typeof mergeModel>({ ...input, done: shards });
}

/** Temporal's own word: after some 4,000 events or 4 MB. At 50,000 or 50 MB it ends a workflow. */
function isHistoryLong(): boolean {
  return workflowInfo().continueAsNewSuggested && patched('merge-in-runs');
}
