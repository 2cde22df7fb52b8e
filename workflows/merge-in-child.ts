import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import {
  ApplicationFailure,
  CancellationScope,
  executeChild,
  getExternalWorkflowHandle,
  ParentClosePolicy,
  patched,
  sleep,
  workflowInfo,
} from '@temporalio/workflow';
import type { FailureDetails } from '../activities/failures.ts';
import type { Place, PlanReference, Roots } from '../activities/types.ts';
import type { CompletedShard } from '../engine/merge/journal.ts';
import { mergeModel } from './merge-model.ts';
import type { ReleaseInput } from './messages.ts';

/** Longer than a worker that was lost with the earlier merge is taken for alive. */
const ORPHAN_ATTEMPTS = 16;
const ORPHAN_WAIT_MAX_MS = 60_000;

/** A child of its own, so that its history does not grow with that of the release. */
export function mergeWorkflowId(): string {
  return `${workflowInfo().workflowId}/merge`;
}

/** Merges all shards of a plan, as a workflow below that of the release. */
export async function mergeInChild(
  input: ReleaseInput,
  place: Place,
  plan: PlanReference,
  roots: Roots,
): Promise<CompletedShard[]> {
  const { threads, memoryBudgetBytes } = input.recipe.merge;
  const limits = {
    ...(threads === undefined ? {} : { threads }),
    ...(memoryBudgetBytes === undefined ? {} : { memoryBudgetBytes }),
  };
  let isMerging = true;
  let cancelled: Promise<void> | undefined;
  CancellationScope.current().cancelRequested.catch(() => {
    if (isMerging) cancelled = cancelMerge();
  });
  try {
    return await afterOrphan(() =>
      executeChild(mergeModel, {
        workflowId: mergeWorkflowId(),
        args: [
          {
            plan,
            roots,
            place,
            parallelShards: input.parallelShards,
            heartbeatTimeoutMs: input.heartbeatTimeoutMs,
            ...limits,
          },
        ],
        cancellationType: 'WAIT_CANCELLATION_COMPLETED',
        parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
      }),
    );
  } finally {
    isMerging = false;
    // The stage may begin again, with a merge of the same id that this must not reach.
    await cancelled;
  }
}

/**
 * A run of this release that was terminated may have left its merge, which ends once its workers hear
 * of that or are taken for dead. Nobody else has a merge of this id.
 *
 * @throws ApplicationFailure `release.already-running`, to be mended, where it does not end
 */
async function afterOrphan<T>(merge: () => Promise<T>): Promise<T> {
  for (let attempt = 0; attempt < ORPHAN_ATTEMPTS; attempt++) {
    try {
      return await merge();
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
      await cancelMerge();
      await sleep(Math.min(1000 * 2 ** attempt, ORPHAN_WAIT_MAX_MS));
    }
  }
  const details: FailureDetails = { disposition: 'mend' };
  throw ApplicationFailure.create({
    type: 'release.already-running',
    message:
      `${mergeWorkflowId()}, the merge of an earlier run of this release, does not end. See that ` +
      'workers run (weldline worker), or terminate it, and resume.',
    nonRetryable: true,
    details: [details],
  });
}

/**
 * Temporal sends the cancellation of a child to the run that was started, which may have ended long
 * ago while a later one goes on with its work: this one is for whichever is there.
 */
async function cancelMerge(): Promise<void> {
  if (!patched('cancel-merge-runs')) return;
  const merging = getExternalWorkflowHandle(mergeWorkflowId());
  try {
    await CancellationScope.nonCancellable(() => merging.cancel());
  } catch {
    // It has ended meanwhile.
  }
}
