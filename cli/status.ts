import type { Listed, ReleaseStatus, Waiting } from '../workflows/messages.ts';
import { EXIT } from './exit-codes.ts';
import { formatDuration, formatMoment, formatTable } from './format.ts';
import type { Output } from './output.ts';
import { type PendingWork, pendingWork } from './pending-work.ts';
import { withSession } from './release.ts';
import {
  findRelease,
  type LiveProgress,
  liveProgress,
  queryStatus,
  type ReleaseHandle,
} from './release-handle.ts';
import { stateOf } from './release-state.ts';
import { progressText, workLines } from './tell-work.ts';
import type { TemporalSession } from './temporal-session.ts';
import { howToGoOn, toReleaseError } from './watch-release.ts';

/** What is known of a release that has not ended. */
interface Running {
  readonly work: readonly PendingWork[];
  readonly progress?: LiveProgress | undefined;
}

/** `weldline status`: how far a release is, what it does and waits for, why it failed. */
export function runStatus(wanted: string | undefined, output: Output): Promise<number> {
  return withSession(output, async (session) => {
    const { handle, ...description } = await findRelease(session.client, wanted);
    const isRunning = description.status.name === 'RUNNING';
    const state = stateOf(description);
    let status: ReleaseStatus;
    try {
      status = await queryStatus(session, handle);
    } catch (error) {
      if (!isRunning) throw error;
      // Nobody answers for it, but the server knows what it waits for.
      output.line(`${handle.workflowId}  ${state.name}`);
      for (const line of linesOf({ work: await pendingWork(session.client, handle) }, session)) {
        output.line(line);
      }
      throw error;
    }
    const shown = isRunning ? stateOfStatus(status) : state.name;
    const running = isRunning ? await runningWork(session, handle, status) : undefined;
    const failure = isRunning ? undefined : await failureOf(handle.result());
    output.line(`${handle.workflowId}  ${shown}${status.host ? `  on ${status.host}` : ''}`);
    if (status.movedFrom !== undefined) {
      output.line(
        `moved here from ${status.movedFrom.join(', ')}, gone; what was approved there is asked again`,
      );
    }
    output.line(stageTable(status, isRunning));
    if (running !== undefined) {
      for (const line of linesOf(running, session)) output.line(line);
      for (const line of waitingLines(handle.workflowId, status)) output.line(line);
      if (session.embedded && shown === 'running' && !session.mayHaveWorkers()) {
        output.line(`no weldline process works on it: weldline resume ${handle.workflowId}`);
      }
    }
    if (failure !== undefined) output.line(`failed: ${failure}`);
    for (const line of cleanedUpLines(status)) output.line(line);
    for (const warning of status.warnings) output.line(`warning: ${warning}`);
    output.result({ id: handle.workflowId, state: shown, ...status, ...running, failure });
    return EXIT.ok;
  });
}

async function runningWork(
  session: TemporalSession,
  handle: ReleaseHandle,
  status: ReleaseStatus,
): Promise<Running> {
  const { client } = session;
  const own = await pendingWork(client, handle);
  const progress = await liveProgress(session, handle, status);
  const isMerging = status.stages.some(
    ({ stage, state }) => stage === 'merge' && state === 'running',
  );
  if (!isMerging || status.mergeWorkflowId === undefined) return { work: own, progress };
  const child = client.workflow.getHandle(status.mergeWorkflowId);
  // Not yet started, or over in this moment.
  const merging = await pendingWork(client, child).catch(() => []);
  return { work: [...own, ...merging], progress };
}

function stateOfStatus({ paused, waiting }: ReleaseStatus): Listed['state'] {
  if (paused !== undefined) return 'paused';
  return waiting === undefined ? 'running' : 'waiting';
}

function linesOf({ work, progress }: Running, { embedded }: TemporalSession): readonly string[] {
  const lines: string[] = [];
  // Of one piece of work its own line says it all.
  if (progress !== undefined && (work.length !== 1 || progress.shards !== undefined)) {
    const { shards } = progress;
    const done = shards === undefined ? '' : `  ${shards.done} of ${shards.total} shards done`;
    lines.push(`now (${progress.stage}): ${progressText({ ...progress, item: '' })}${done}`);
  } else if (work.length > 0) lines.push('now:');
  const nowMs = Date.now();
  return [...lines, ...work.flatMap((each) => workLines(each, nowMs, embedded))];
}

/** All that it waits for, each with what helps. */
export function waitingLines(
  id: string,
  { waiting, waitings, paused }: Pick<ReleaseStatus, 'waiting' | 'waitings' | 'paused'>,
): readonly string[] {
  const all: readonly Waiting[] = waitings ?? (waiting === undefined ? [] : [waiting]);
  return [
    ...(paused === undefined
      ? []
      : [
          `paused by ${paused.by} since ${formatMoment(paused.at)}. To go on: weldline resume ${id}`,
        ]),
    ...all.flatMap((each) => [
      `waits (${each.stage}) [${each.code}]: ${each.message}`,
      howToGoOn(id, each),
    ]),
  ];
}

export function cleanedUpLines({ cleanedUp }: ReleaseStatus): readonly string[] {
  const { removed = [], left = [] } = cleanedUp ?? {};
  return [
    ...removed.map((each) => `removed ${each}`),
    ...left.map((each) => `could not be removed: ${each}`),
  ];
}

function stageTable(status: ReleaseStatus, isRunning: boolean): string {
  const nowMs = Date.now();
  const rows = status.stages.map(({ stage, state, startedAtMs, finishedAtMs }) => {
    const endMs = finishedAtMs ?? (isRunning ? nowMs : undefined);
    const isTimed = startedAtMs !== undefined && endMs !== undefined;
    return ['', stage, state, isTimed ? formatDuration(Math.max(0, endMs - startedAtMs)) : ''];
  });
  return formatTable(rows);
}

async function failureOf(result: Promise<unknown>): Promise<string | undefined> {
  try {
    await result;
    return undefined;
  } catch (error) {
    const known = toReleaseError(error);
    return known instanceof Error ? known.message : String(known);
  }
}
