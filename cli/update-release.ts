import {
  type Client,
  type WorkflowExecutionDescription,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  WorkflowUpdateRPCTimeoutOrCancelledError,
} from '@temporalio/client';
import type { UpdateDefinition } from '@temporalio/common';
import { type ErrorCode, WeldlineError } from '../engine/errors.ts';
import { noWorker, type ReleaseHandle } from './release-handle.ts';

/** A worker answers at once; one that takes over from another that was killed, in seconds. */
const UPDATE_TIMEOUT_MS = 60_000;

/**
 * Tells a release something that it may refuse.
 *
 * @throws WeldlineError `refused` with the reason that it gives; `release.not-found` if it has ended,
 *   `temporal.worker-failed` if no worker passes it on
 */
export async function updateRelease<Result, Args extends [unknown, ...unknown[]]>(
  client: Client,
  handle: ReleaseHandle,
  update: UpdateDefinition<Result, Args>,
  { args, refused }: { readonly args: Args; readonly refused: ErrorCode },
): Promise<Result> {
  try {
    return await client.withDeadline(Date.now() + UPDATE_TIMEOUT_MS, () =>
      handle.executeUpdate(update, { args }),
    );
  } catch (error) {
    if (error instanceof WorkflowUpdateFailedError) {
      throw new WeldlineError(refused, error.cause?.message ?? error.message, { cause: error });
    }
    if (error instanceof WorkflowNotFoundError) throw notRunning(handle.workflowId);
    if (error instanceof WorkflowUpdateRPCTimeoutOrCancelledError) throw noWorker(error);
    throw error;
  }
}

/** @throws WeldlineError `release.not-found` for a release that has ended */
export function requireRunning({
  workflowId,
  status,
}: Pick<WorkflowExecutionDescription, 'workflowId' | 'status'>): void {
  if (status.name !== 'RUNNING') throw notRunning(workflowId, status.name.toLowerCase());
}

function notRunning(id: string, state?: string): WeldlineError {
  return new WeldlineError(
    'release.not-found',
    `${id} is not running${state === undefined ? '' : ` (${state})`}. See weldline status ${id}, or ` +
      'weldline list.',
  );
}
