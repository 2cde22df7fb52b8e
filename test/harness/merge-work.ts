/** Who merges which shards of a release, as the server knows it. */
import { type WorkflowHandle, WorkflowNotFoundError } from '@temporalio/client';
import type { TestServer } from './temporal-server.ts';

/** `PENDING_ACTIVITY_STATE_STARTED` of Temporal's API: a worker has taken it and is at work. */
const STARTED = 2;

export function mergeOf({ client }: TestServer, workflowId: string): WorkflowHandle {
  return client.workflow.getHandle(`${workflowId}/merge`);
}

/** The SDK's identity of a worker begins with its process id. */
function pidOf(identity: string | null | undefined): number {
  return Number.parseInt(identity ?? '', 10);
}

/** Processes that merge a shard at the moment. */
export async function mergingNow(merge: WorkflowHandle): Promise<readonly number[]> {
  try {
    const { raw } = await merge.describe();
    return (raw.pendingActivities ?? [])
      .filter(({ state }) => state === STARTED)
      .map(({ lastWorkerIdentity }) => pidOf(lastWorkerIdentity));
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return [];
    throw error;
  }
}

/** Processes that did the activities of a run, one entry for each that was completed. */
export async function doneBy(handle: WorkflowHandle, ofType?: RegExp): Promise<readonly number[]> {
  const { events } = await handle.fetchHistory();
  const types = new Map<string, string>();
  const pids: number[] = [];
  for (const event of events ?? []) {
    const scheduled = event.activityTaskScheduledEventAttributes;
    if (scheduled != null) types.set(String(event.eventId), scheduled.activityType?.name ?? '');
    const completed = event.activityTaskCompletedEventAttributes;
    if (completed == null) continue;
    const type = types.get(String(completed.scheduledEventId)) ?? '';
    if (ofType === undefined || ofType.test(type)) pids.push(pidOf(completed.identity));
  }
  return pids;
}
