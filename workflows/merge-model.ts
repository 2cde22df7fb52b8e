import { setHandler } from '@temporalio/workflow';
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
}

/** Merges all shards of a plan, some at a time, one activity each. */
export async function mergeModel(input: MergeInput): Promise<CompletedShard[]> {
  const { plan, roots, taskQueue, threads, memoryBudgetBytes } = input;
  const earlier = taskQueue === undefined ? {} : { merge: taskQueue };
  const place = input.place ?? { queues: earlier };
  const { mergeShard } = activitiesAt(place, 'merge', longWork(input.heartbeatTimeoutMs));
  const shards: CompletedShard[] = new Array(plan.shards);
  let shardsDone = 0;
  let bytesDone = 0;
  setHandler(mergeStatusQuery, () => ({
    shardsTotal: plan.shards,
    shardsDone,
    bytesTotal: plan.bytesTotal,
    bytesDone,
  }));

  let next = 0;
  const mergeNext = async (): Promise<void> => {
    for (let shard = next++; shard < plan.shards; shard = next++) {
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
  const lanes = Math.min(input.parallelShards, plan.shards);
  await Promise.all(Array.from({ length: lanes }, mergeNext));
  return shards;
}
