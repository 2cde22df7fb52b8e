import type { Client, WorkflowHandle } from '@temporalio/client';
import type { ActivityProgress } from '../activities/heartbeat.ts';
import { decodeFailure, decodePayload } from './payloads.ts';

/** One activity of a release that is not done yet. */
export interface PendingWork {
  /** Name of the activity. */
  readonly activity: string;
  /** Which of its kind: a shard, a target, a model. */
  readonly subject?: string;
  /**
   * `queued`: no worker has taken it on; `retrying`: an attempt failed, and the next one is not yet due;
   * `stopping`: its worker has been told to stop.
   */
  readonly state: 'queued' | 'running' | 'retrying' | 'stopping';
  /** From 1. */
  readonly attempt: number;
  /** After so many a person is asked; 0 for no end. */
  readonly attemptsMax: number;
  /** ISO 8601, UTC, as all times here. */
  readonly startedAt?: string;
  readonly nextAttemptAt?: string;
  /** Process id and host of the worker that does it, or did it last. */
  readonly worker?: string;
  readonly queue?: string;
  /** Whether a worker has asked the queue for work lately; known of queued work only. */
  readonly queueIsServed?: boolean;
  readonly progress?: ActivityProgress;
  readonly lastError?: { readonly code: string; readonly message: string };
}

/** `temporal.api.enums.v1.PendingActivityState` */
const STARTED = 2;
const CANCEL_REQUESTED = 3;
/** `temporal.api.enums.v1.TaskQueueType` */
const ACTIVITY_QUEUE = 2;

/** An idle worker asks once a minute. */
const POLLER_SILENT_MS = 70_000;

/** What a workflow waits for its workers to do, in the order it was asked for. */
export async function pendingWork(
  client: Client,
  handle: WorkflowHandle,
): Promise<readonly PendingWork[]> {
  const { pendingActivities } = (await handle.describe()).raw;
  if (pendingActivities == null || pendingActivities.length === 0) return [];
  const scheduled = await scheduledActivities(client, handle);
  const served = new Map<string, Promise<boolean>>();
  const isServed = (queue: string): Promise<boolean> => {
    const known = served.get(queue) ?? hasPoller(client, queue);
    served.set(queue, known);
    return known;
  };
  // The server lists them in no order.
  const ids = [...scheduled.keys()];
  const placeOf = (id: string | null | undefined): number => ids.indexOf(id ?? '');
  const inOrder = pendingActivities.toSorted(
    (a, b) => placeOf(a.activityId) - placeOf(b.activityId),
  );
  return Promise.all(
    inOrder.map(async (pending): Promise<PendingWork> => {
      const { subject, queue } = scheduled.get(pending.activityId ?? '') ?? {};
      const nextAttemptAt = toIso(pending.nextAttemptScheduleTime);
      const startedAt = toIso(pending.lastStartedTime);
      const state = stateOf(pending.state, nextAttemptAt);
      const progress = await decodePayload<ActivityProgress>(
        client,
        pending.heartbeatDetails?.payloads?.[0],
      );
      const isLost = queue !== undefined && state === 'queued';
      return {
        activity: pending.activityType?.name ?? '',
        ...(subject && { subject }),
        state,
        attempt: pending.attempt ?? 1,
        attemptsMax: pending.maximumAttempts ?? 0,
        ...(startedAt && state !== 'queued' && { startedAt }),
        ...(nextAttemptAt && { nextAttemptAt }),
        ...(pending.lastWorkerIdentity && { worker: pending.lastWorkerIdentity }),
        ...(queue && { queue }),
        ...(isLost && { queueIsServed: await isServed(queue) }),
        ...(progress && { progress }),
        ...(pending.lastFailure && { lastError: await errorOf(client, pending.lastFailure) }),
      };
    }),
  );
}

function stateOf(
  state: number | null | undefined,
  nextAttemptAt: string | undefined,
): PendingWork['state'] {
  if (state === STARTED) return 'running';
  if (state === CANCEL_REQUESTED) return 'stopping';
  const isDue = nextAttemptAt === undefined || Date.parse(nextAttemptAt) <= Date.now();
  return isDue ? 'queued' : 'retrying';
}

/** What only the history says of activities, by their ids. */
async function scheduledActivities(
  client: Client,
  handle: WorkflowHandle,
): Promise<ReadonlyMap<string, { readonly subject?: string; readonly queue?: string }>> {
  const { events } = await handle.fetchHistory();
  const found = new Map<string, { readonly subject?: string; readonly queue?: string }>();
  for (const { activityTaskScheduledEventAttributes: scheduled, userMetadata } of events ?? []) {
    if (scheduled == null) continue;
    const subject = await decodePayload<string>(client, userMetadata?.summary);
    const queue = scheduled.taskQueue?.name;
    found.set(scheduled.activityId ?? '', { ...(subject && { subject }), ...(queue && { queue }) });
  }
  return found;
}

async function hasPoller({ workflowService, options }: Client, queue: string): Promise<boolean> {
  const { pollers } = await workflowService.describeTaskQueue({
    namespace: options.namespace,
    taskQueue: { name: queue },
    taskQueueType: ACTIVITY_QUEUE,
  });
  return (pollers ?? []).some(({ lastAccessTime }) => {
    const at = toIso(lastAccessTime);
    return at !== undefined && Date.now() - Date.parse(at) < POLLER_SILENT_MS;
  });
}

async function errorOf(
  client: Client,
  failure: Parameters<typeof decodeFailure>[1],
): Promise<{ readonly code: string; readonly message: string }> {
  const error = await decodeFailure(client, failure);
  const { type } = error as { readonly type?: unknown };
  if (typeof type === 'string') return { code: type, message: error.message };
  // Of Temporal itself: the worker fell silent, or the work took too long.
  return { code: 'temporal.worker-failed', message: `Its worker was lost (${error.message}).` };
}

interface Timestamp {
  readonly seconds?: { toString(): string } | null;
  readonly nanos?: number | null;
}

function toIso(time: Timestamp | null | undefined): string | undefined {
  if (time?.seconds == null) return undefined;
  return new Date(1000 * Number(time.seconds.toString()) + (time.nanos ?? 0) / 1e6).toISOString();
}
