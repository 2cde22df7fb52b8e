import {
  ActivityFailure,
  type ActivityFunctionWithOptions,
  type ActivityInterfaceFor,
  type ActivityOptions,
  ApplicationFailure,
  patched,
  proxyActivities,
  TimeoutFailure,
} from '@temporalio/workflow';
import type { Activities } from '../activities/create-activities.ts';
import type { Place, Role } from '../activities/types.ts';

/** The failure of work on a host that is gone: the release moves to another. */
export const HOST_GONE = 'host.gone';

/** Where a release is done if nobody says otherwise, and in runs of earlier versions. */
export interface EarlierQueues {
  readonly mergeTaskQueue?: string;
  readonly convertTaskQueue?: string;
  readonly evaluateTaskQueue?: string;
}

/**
 * Asks the workers where a release is to be done: on the queues of all of them, where they share
 * their storage; otherwise on those of the host that answered.
 */
export async function findPlace(earlier: EarlierQueues): Promise<Place> {
  if (!patched('placed')) {
    const { mergeTaskQueue, convertTaskQueue, evaluateTaskQueue } = earlier;
    return {
      queues: {
        ...(mergeTaskQueue === undefined ? {} : { merge: mergeTaskQueue }),
        ...(convertTaskQueue === undefined ? {} : { convert: convertTaskQueue }),
        ...(evaluateTaskQueue === undefined ? {} : { gpu: evaluateTaskQueue }),
      },
    };
  }
  const { place } = proxyActivities<Activities>({
    startToCloseTimeout: '1m',
    summary: 'which host does this release',
  });
  return place();
}

/**
 * Work that waits long behind other work is asked after ever more rarely, at last once in this time:
 * each time takes eleven events, and a history that is full ends its workflow.
 */
const START_TIMEOUT_MAX_MS = 3_600_000;

type Presence = NonNullable<Place['presence']>;

type AnyActivity = ActivityFunctionWithOptions<(...input: unknown[]) => Promise<unknown>>;

/** The activities of a role, where the release is done. */
export function activitiesAt(
  { queues, presence }: Place,
  role: Role,
  options: ActivityOptions,
): ActivityInterfaceFor<Activities> {
  const taskQueue = queues[role];
  const activities = proxyActivities<Activities>({
    ...options,
    ...(taskQueue === undefined ? {} : { taskQueue }),
  });
  if (presence === undefined) return activities;
  return new Proxy(activities, {
    get(target, name) {
      const activity = (target as unknown as Readonly<Record<string, AnyActivity>>)[String(name)];
      if (activity === undefined) return undefined;
      const executeWithOptions: AnyActivity['executeWithOptions'] = (own, input) =>
        whilePresent(presence, (scheduleToStartTimeout) =>
          activity.executeWithOptions({ ...own, scheduleToStartTimeout }, input),
        );
      const run = (...input: unknown[]) => executeWithOptions({}, input);
      return Object.assign(run, { executeWithOptions });
    },
  });
}

/**
 * Does work on a host of its own. Work that did not start in time waits behind other work if the
 * host answers otherwise; if it does not, nobody will ever do it.
 */
async function whilePresent<T>(
  presence: Presence,
  work: (startTimeoutMs: number) => Promise<T>,
): Promise<T> {
  const { timeoutMs } = presence;
  for (let startTimeoutMs = timeoutMs; ; ) {
    try {
      return await work(startTimeoutMs);
    } catch (error) {
      if (!hasNotStarted(error)) throw error;
      if (await answers(presence)) {
        startTimeoutMs = Math.max(timeoutMs, Math.min(2 * startTimeoutMs, START_TIMEOUT_MAX_MS));
        continue;
      }
      throw ApplicationFailure.create({
        type: HOST_GONE,
        message: 'The host of this release does not answer any more.',
        nonRetryable: true,
      });
    }
  }
}

async function answers({ queue, timeoutMs }: Presence): Promise<boolean> {
  const { answer } = proxyActivities<Activities>({
    taskQueue: queue,
    startToCloseTimeout: '10s',
    scheduleToStartTimeout: timeoutMs,
    scheduleToCloseTimeout: 2 * timeoutMs,
    summary: 'whether the host of this release is there',
  });
  try {
    await answer();
    return true;
  } catch (error) {
    if (isTimeout(error)) return false;
    throw error;
  }
}

function hasNotStarted(error: unknown): boolean {
  return (
    error instanceof ActivityFailure &&
    error.cause instanceof TimeoutFailure &&
    error.cause.timeoutType === 'SCHEDULE_TO_START'
  );
}

function isTimeout(error: unknown): boolean {
  return error instanceof ActivityFailure && error.cause instanceof TimeoutFailure;
}
