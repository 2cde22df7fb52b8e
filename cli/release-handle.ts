import {
  type Client,
  type WorkflowExecutionDescription,
  type WorkflowHandle,
  WorkflowNotFoundError,
} from '@temporalio/client';
import type { ActivityProgress } from '../activities/heartbeat.ts';
import { WeldlineError } from '../engine/errors.ts';
import {
  type MergeStatus,
  mergeStatusQuery,
  type ReleaseStatus,
  statusQuery,
} from '../workflows/messages.ts';
import { possibleIds } from '../workflows/release-id.ts';
import type { releaseModel } from '../workflows/release-model.ts';
import { decodePayload } from './payloads.ts';
import type { TemporalSession } from './temporal-session.ts';

export type ReleaseHandle = WorkflowHandle<typeof releaseModel>;

/** How long a query may wait for a worker that is there. */
const QUERY_TIMEOUT_MS = 5_000;

/** The server offers a query to the worker that died for 10 s before it asks another. */
const QUERY_AFTER_CRASH_TIMEOUT_MS = 30_000;

/** After those 10 s, for another worker to answer. */
const OTHER_WORKER_TIMEOUT_MS = 12_000;

/** Bringing the embedded server back takes seconds; on a machine that swaps, more of them. */
const RESTART_TIMEOUT_MS = 60_000;

/** Temporal's own limit is 1000. */
const ID_LENGTH_MAX = 900;

/** So many releases are named to a person who asks for one that is not there. */
const KNOWN_MAX = 5;

/**
 * Finds a release by its id, or by the name and version it is made of.
 * @param wanted undefined for the one that was started last
 * @throws WeldlineError `release.not-found`, `cli.usage`
 */
export async function findRelease(
  client: Client,
  wanted: string | undefined,
): Promise<WorkflowExecutionDescription & { readonly handle: ReleaseHandle }> {
  if (wanted !== undefined && !isId(wanted)) {
    throw new WeldlineError('cli.usage', `"${wanted.slice(0, 80)}" is no id of a release.`);
  }
  const id = wanted ?? (await latestReleaseId(client));
  if (id !== undefined) {
    for (const candidate of possibleIds(id)) {
      const handle = client.workflow.getHandle<typeof releaseModel>(candidate);
      try {
        const description = await handle.describe();
        // Merges and nights have ids too, but answer to nothing that releases are asked.
        if (description.type === RELEASE_TYPE) return { ...description, handle };
      } catch (error) {
        if (!(error instanceof WorkflowNotFoundError)) throw error;
      }
    }
  }
  // A release that was run several times is listed for each of them.
  const ids = new Set<string>();
  for await (const { workflowId } of client.workflow.list({ query: RELEASES, pageSize: 100 })) {
    ids.add(workflowId);
    if (ids.size === KNOWN_MAX) break;
  }
  const known = [...ids];
  throw new WeldlineError(
    'release.not-found',
    wanted === undefined
      ? 'There are no releases yet. Start one with weldline release <recipe>.'
      : `There is no release ${wanted}.` +
          (known.length === 0 ? '' : ` There are ${known.join(', ')} (weldline list).`),
  );
}

const RELEASE_TYPE = 'releaseModel';

/** Selects releases among all workflows. */
export const RELEASES = `WorkflowType = '${RELEASE_TYPE}'`;

/** What the server takes for an id, with `release-` before it. */
function isId(text: string): boolean {
  return text !== '' && text.length <= ID_LENGTH_MAX;
}

async function latestReleaseId(client: Client): Promise<string | undefined> {
  for await (const { workflowId } of client.workflow.list({ query: RELEASES, pageSize: 1 })) {
    return workflowId;
  }
  return undefined;
}

/**
 * Asks a release how far it is. Only a worker can answer; where none does and the server is
 * weldline's own, this process answers itself.
 */
export async function queryStatus(
  session: TemporalSession,
  handle: ReleaseHandle,
): Promise<ReleaseStatus> {
  if (session.mayHaveWorkers()) {
    try {
      return await queryOnce(session, handle);
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) throw noWorker(error);
      if (!session.embedded || session.hasWorkers()) throw noWorker(error);
    }
  }
  const workers = await session.startWorkers({ workflowsOnly: true });
  try {
    return await queryOnce(session, handle, QUERY_AFTER_CRASH_TIMEOUT_MS);
  } catch (error) {
    throw noWorker(error);
  } finally {
    await workers.stop();
  }
}

/**
 * As `queryStatus`, for a release that was just started or joined. On weldline's own server this
 * process works on it: no answer means that the machine is busy or the server is being restarted. On
 * another, its worker may just have died.
 */
export async function awaitStatus(
  session: TemporalSession,
  handle: ReleaseHandle,
): Promise<ReleaseStatus> {
  const patienceMs = session.embedded ? RESTART_TIMEOUT_MS : OTHER_WORKER_TIMEOUT_MS;
  const deadline = Date.now() + patienceMs;
  for (;;) {
    try {
      return await queryStatus(session, handle);
    } catch (error) {
      session.lost.throwIfAborted();
      if (Date.now() > deadline) throw session.embedded ? error : begunUnanswered(handle, error);
    }
  }
}

function queryOnce(
  session: TemporalSession,
  handle: ReleaseHandle,
  timeoutMs = QUERY_TIMEOUT_MS,
): Promise<ReleaseStatus> {
  const deadline = Date.now() + timeoutMs;
  return session.client.withDeadline(deadline, () => handle.query(statusQuery));
}

/** Whoever reads only that nobody answers begins it again, or takes it not to have begun. */
function begunUnanswered(handle: ReleaseHandle, cause: unknown): unknown {
  if (!(cause instanceof WeldlineError && cause.code === 'temporal.worker-failed')) return cause;
  return new WeldlineError(
    cause.code,
    `${handle.workflowId} has begun, but no worker answers for it yet. It goes on as soon as one does: ` +
      'start one with weldline worker, and if workers have a WELDLINE_DEPLOYMENT, make its version current.',
    { cause },
  );
}

export function noWorker(cause: unknown): WeldlineError {
  return new WeldlineError(
    'temporal.worker-failed',
    'No worker answers for this release. Start one with weldline worker.',
    { cause },
  );
}

export interface LiveProgress extends ActivityProgress {
  readonly shards?: { readonly done: number; readonly total: number };
}

/**
 * What the activities of a release report right now, by their heartbeats; of the merge, all shards
 * together.
 */
export async function liveProgress(
  session: TemporalSession,
  handle: ReleaseHandle,
  status: ReleaseStatus,
): Promise<LiveProgress | undefined> {
  const { client } = session;
  const running = status.stages.find((stage) => stage.state === 'running')?.stage;
  if (running !== 'merge' || status.mergeWorkflowId === undefined) {
    const all = await heartbeats(client, handle);
    // Conversions and evaluations go side by side: the one that says what it does is shown.
    return all.find(({ item }) => item !== '') ?? all[0];
  }
  const child = client.workflow.getHandle(status.mergeWorkflowId);
  let merge: MergeStatus;
  try {
    merge = await client.withDeadline(Date.now() + QUERY_TIMEOUT_MS, () =>
      child.query(mergeStatusQuery),
    );
  } catch {
    return undefined;
  }
  const shards = await heartbeats(client, child);
  const bytesDone = shards.reduce((sum, shard) => sum + shard.bytesDone, merge.bytesDone);
  const rates = shards.flatMap(({ bytesPerSecond }) => bytesPerSecond ?? []);
  return {
    stage: 'merge',
    item: shards.map((shard) => shard.item).find((item) => item !== '') ?? '',
    bytesDone,
    bytesTotal: merge.bytesTotal,
    ...(rates.length > 0 && { bytesPerSecond: rates.reduce((sum, rate) => sum + rate) }),
    shards: { done: merge.shardsDone, total: merge.shardsTotal },
  };
}

async function heartbeats(client: Client, handle: WorkflowHandle): Promise<ActivityProgress[]> {
  const { raw } = await handle.describe();
  const progress: ActivityProgress[] = [];
  for (const { heartbeatDetails } of raw.pendingActivities ?? []) {
    const beat = await decodePayload<ActivityProgress>(client, heartbeatDetails?.payloads?.[0]);
    if (beat !== undefined) progress.push(beat);
  }
  return progress;
}
