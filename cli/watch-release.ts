import { setTimeout } from 'node:timers/promises';
import {
  type WorkflowExecutionDescription,
  WorkflowFailedError,
  WorkflowNotFoundError,
} from '@temporalio/client';
import { isErrorCode, WeldlineError } from '../engine/errors.ts';
import type { ReleaseResult, ReleaseStatus, Stage, Waiting } from '../workflows/messages.ts';
import { EXIT } from './exit-codes.ts';
import { formatDuration, formatMoment } from './format.ts';
import type { Output } from './output.ts';
import { Progress } from './progress.ts';
import { liveProgress, queryStatus, type ReleaseHandle } from './release-handle.ts';
import type { TemporalSession } from './temporal-session.ts';

const POLL_INTERVAL_MS = 400;

export interface WatchOptions {
  /** Goes on watching while it waits for a person, or is paused. */
  readonly follow?: boolean;
}

/**
 * Follows a release until it ends, waits for a person or is paused, showing each stage as it finishes.
 *
 * @returns the exit status
 * @throws WeldlineError with the code the release failed with; the signal's reason
 */
export async function watchRelease(
  session: TemporalSession,
  handle: ReleaseHandle,
  output: Output,
  signal: AbortSignal,
  { follow = false }: WatchOptions = {},
): Promise<number> {
  output.line(`Release ${handle.workflowId}`);
  if (session.uiAddress !== undefined) output.line(`  watch it at ${session.uiAddress}`);
  const progress = new Progress();
  const told = new Set<Stage>();
  let stopped = '';
  try {
    for (;;) {
      signal.throwIfAborted();
      // Looked at before the status, so that the last stages are told before the end is.
      const ended = await hasEnded(handle);
      const status = await readStatus(session, handle);
      if (status !== undefined) tellStages(status, told, progress, output);
      if (ended) {
        progress.clear();
        return tellResult(await resultOf(handle), output);
      }
      if (status !== undefined && isStopped(status)) {
        progress.clear();
        const { paused, waitings = [] } = status;
        if (!follow) return tellStopped(handle.workflowId, status, output);
        const now = JSON.stringify([paused, waitings]);
        if (now !== stopped) noteStopped(handle.workflowId, status, output);
        stopped = now;
      } else if (status !== undefined) await showProgress(session, handle, status, progress);
      await setTimeout(POLL_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
    }
  } finally {
    progress.clear();
  }
}

/**
 * Polled rather than awaited: a pending `result()` outlives the session it was asked in.
 * A server that is being restarted has not ended anything.
 */
async function hasEnded(handle: ReleaseHandle): Promise<boolean> {
  try {
    return !isRunning(await handle.describe());
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) throw error;
    return false;
  }
}

async function resultOf(handle: ReleaseHandle): Promise<ReleaseResult> {
  try {
    return await handle.result();
  } catch (error) {
    throw toReleaseError(error);
  }
}

/** Undefined where it cannot be had now: a server restart must not end the watching. */
async function readStatus(
  session: TemporalSession,
  handle: ReleaseHandle,
): Promise<ReleaseStatus | undefined> {
  try {
    return await queryStatus(session, handle);
  } catch {
    return undefined;
  }
}

async function showProgress(
  session: TemporalSession,
  handle: ReleaseHandle,
  status: ReleaseStatus,
  progress: Progress,
): Promise<void> {
  const live = await liveProgress(session, handle, status).catch(() => undefined);
  if (live === undefined) return;
  const shards = live.shards;
  const label =
    shards === undefined || shards.total < 2
      ? live.stage
      : `${live.stage} (shard ${Math.min(shards.done + 1, shards.total)} of ${shards.total})`;
  progress.update({ ...live, label });
}

function tellStages(
  status: ReleaseStatus,
  told: Set<Stage>,
  progress: Progress,
  output: Output,
): void {
  for (const { stage, state, startedAtMs = 0, finishedAtMs = 0 } of status.stages) {
    if (state !== 'done' || told.has(stage)) continue;
    told.add(stage);
    progress.clear();
    const time = formatDuration(finishedAtMs - startedAtMs);
    output.line(`  ${stage.padEnd(14)} ${time.padStart(8)}  ${detailOf(stage, status)}`.trimEnd());
    if (stage === 'plan') for (const warning of status.warnings) output.warn(warning);
  }
}

function detailOf(stage: Stage, { inputs, plan, judged }: ReleaseStatus): string {
  if (stage === 'resolve' && inputs !== undefined) return inputs.artefact;
  if (stage === 'plan' && plan !== undefined) {
    return `${plan.tensorsMerged} of ${plan.tensorsTotal} tensors in ${plan.shards} shard(s)`;
  }
  if (stage === 'gate' && judged !== undefined) {
    const refused = judged.failed.map(({ id }) => id);
    const passed = `${judged.passed.join(', ') || 'nothing'} passed`;
    return refused.length === 0 ? passed : `${passed}; refused ${refused.join(', ')}`;
  }
  return '';
}

function tellResult(result: ReleaseResult, output: Output): number {
  const { judged, aliasWarnings = [] } = result;
  for (const warning of [...(judged?.warnings ?? []), ...aliasWarnings]) output.warn(warning);
  output.line();
  output.line(`Released ${result.artefact}`);
  output.line(`  checkpoint  ${result.directory}`);
  for (const { location, existed } of result.publications) {
    output.line(`  published   ${location}${existed ? ' (was there already)' : ''}`);
  }
  for (const { alias, target, part } of result.aliases ?? []) {
    output.line(`  alias       ${alias}${part === undefined ? '' : `, ${part}`} at ${target}`);
  }
  if (result.publications.length === 0) {
    output.line('  published   nowhere: the recipe names no target');
  }
  output.line(`  report      ${result.report.html ?? result.report.markdown}`);
  output.result(result);
  return EXIT.ok;
}

/** Whether nothing more happens before a person says so. Work that is paused ends first. */
function isStopped({ waiting, paused, stages }: ReleaseStatus): boolean {
  if (paused === undefined) return waiting !== undefined;
  return stages.every(({ state }) => state !== 'running');
}

function tellStopped(id: string, status: ReleaseStatus, output: Output): number {
  const { waiting, paused } = status;
  output.result({ id, ...(waiting && { waiting }), ...(paused && { paused }) });
  noteStopped(id, status, output);
  return EXIT.waiting;
}

function noteStopped(
  id: string,
  { waiting, waitings, paused }: ReleaseStatus,
  output: Output,
): void {
  if (paused !== undefined) {
    output.note(`The release is paused by ${paused.by} since ${formatMoment(paused.at)}.`);
    output.note(`To go on: weldline resume ${id}`);
  }
  for (const each of waitings ?? (waiting === undefined ? [] : [waiting])) {
    output.note(`The release waits (${each.stage}): ${each.message}`);
    output.note(howToGoOn(id, each));
  }
}

/** The command that helps a release that waits. */
export function howToGoOn(id: string, { needs }: Waiting): string {
  switch (needs) {
    case 'approval':
      return `To approve it: weldline approve ${id}`;
    case 'override':
      return `To publish it all the same: weldline approve ${id} --override "reason"`;
    default:
      return `When that is mended: weldline resume ${id}`;
  }
}

/** The failure that a workflow ended with, as the error it was in the activity. */
export function toReleaseError(error: unknown): unknown {
  if (!(error instanceof WorkflowFailedError)) return error;
  const cause = error.cause as { name?: string; type?: unknown; message?: string } | undefined;
  if (cause?.name === 'CancelledFailure') {
    return new WeldlineError('release.cancelled', 'The release was cancelled.', { cause: error });
  }
  const code = isErrorCode(cause?.type) ? cause.type : 'release.failed';
  return new WeldlineError(code, cause?.message ?? error.message, { cause: error });
}

export function isRunning(description: WorkflowExecutionDescription): boolean {
  return description.status.name === 'RUNNING';
}
