/** Starts releases on a test server and follows them. */
import { type Client, WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import type { ActivityProgress } from '../../activities/heartbeat.ts';
import type { Environment } from '../../config/environment.ts';
import { createLogger } from '../../workers/logger.ts';
import { startWorkers } from '../../workers/main.ts';
import { ROLES } from '../../workers/roles.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { TASK_QUEUE } from '../../workers/task-queues.ts';
import { type ReleaseInput, type ReleaseStatus, statusQuery } from '../../workflows/messages.ts';
import type { releaseModel } from '../../workflows/release-model.ts';
import type { TestServer } from './temporal-server.ts';
import { waitFor } from './wait-for.ts';

export type TestRelease = WorkflowHandle<typeof releaseModel>;

export function startTestWorkers(
  { address, namespace }: TestServer,
  environment: Environment,
  roles = ROLES,
): Promise<RunningWorkers> {
  return startWorkers({ environment, address, namespace, roles, logger: createLogger('error') });
}

export async function startRelease(
  client: Client,
  input: ReleaseInput,
  workflowId = `release-${input.recipe.name}-${input.recipe.version}`,
): Promise<TestRelease> {
  return client.workflow.start<typeof releaseModel>('releaseModel', {
    workflowId,
    taskQueue: TASK_QUEUE,
    args: [input],
  });
}

/** Waits until the status of a release is as wanted. */
export function waitForStatus(
  release: TestRelease,
  what: string,
  isWanted: (status: ReleaseStatus) => boolean,
  timeoutMs?: number,
): Promise<ReleaseStatus> {
  const look = async (): Promise<ReleaseStatus | undefined> => {
    const status = await release.query(statusQuery);
    return isWanted(status) ? status : undefined;
  };
  return waitFor(what, look, timeoutMs);
}

/** What a failed release ended with: the code of the activity, not layers of Temporal. */
export async function failureOf(
  handle: TestRelease,
): Promise<{ readonly code: unknown; readonly message: string }> {
  const error: unknown = await handle.result().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof WorkflowFailedError)) throw new Error('the release did not fail');
  const { type, message } = error.cause as unknown as { type: string; message: string };
  return { code: type, message };
}

/** The whole history as the JSON that the Temporal tools write, payloads decoded beside it. */
export async function historyText(handle: WorkflowHandle): Promise<string> {
  const json = historyToJSON(await handle.fetchHistory());
  const decoded = [...json.matchAll(/"data": ?"([A-Za-z0-9+/=]+)"/g)]
    .map(([, data]) => Buffer.from(data ?? '', 'base64').toString('utf8'))
    .join('\n');
  return `${json}\n${decoded}`;
}

export interface ActivityRun {
  readonly type: string;
  readonly attempts: number;
  /** The codes of failed attempts that were tried again, and of the final failure. */
  readonly failures: readonly string[];
}

/** Every activity of a run, in the order they were scheduled. */
export async function activityRuns(handle: WorkflowHandle): Promise<ActivityRun[]> {
  const { events } = await handle.fetchHistory();
  const runs = new Map<string, { type: string; attempts: number; failures: string[] }>();
  for (const event of events ?? []) {
    const scheduled = event.activityTaskScheduledEventAttributes;
    if (scheduled != null) {
      const type = scheduled.activityType?.name ?? '';
      runs.set(String(event.eventId), { type, attempts: 0, failures: [] });
    }
    const started = event.activityTaskStartedEventAttributes;
    const run = runs.get(String(started?.scheduledEventId));
    if (started != null && run !== undefined) {
      run.attempts = started.attempt ?? 0;
      const code = started.lastFailure?.applicationFailureInfo?.type;
      if (code != null) run.failures.push(code);
      else if (started.lastFailure?.timeoutFailureInfo != null) run.failures.push('timeout');
    }
    const failed = event.activityTaskFailedEventAttributes;
    if (failed != null) {
      runs
        .get(String(failed.scheduledEventId))
        ?.failures.push(failed.failure?.applicationFailureInfo?.type ?? '');
    }
  }
  return [...runs.values()];
}

/** What the activities under way reported last. */
export async function heartbeatsOf(handle: WorkflowHandle): Promise<ActivityProgress[]> {
  const { raw } = await handle.describe();
  return (raw.pendingActivities ?? []).flatMap(({ heartbeatDetails }) => {
    const data = heartbeatDetails?.payloads?.[0]?.data;
    return data == null ? [] : [JSON.parse(Buffer.from(data).toString('utf8'))];
  });
}
