import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import {
  ApplicationFailure,
  CancellationScope,
  executeChild,
  isCancellation,
  log,
  ParentClosePolicy,
  setCurrentDetails,
  sleep,
  upsertMemo,
  workflowInfo,
} from '@temporalio/workflow';
import type { Night } from '../activities/night-types.ts';
import type { Place } from '../activities/types.ts';
import {
  NIGHT_MEMO,
  type NightlyInput,
  type NightMemo,
  type NightResult,
} from './nightly-messages.ts';
import { longWork } from './options.ts';
import { activitiesAt, findPlace, HOST_GONE } from './placement.ts';
import { releaseId } from './release-id.ts';
import { releaseModel } from './release-model.ts';
import { codeOf, withCode } from './stage-runner.ts';

/** A memo is for lists; the failure itself has the whole text. */
const DETAIL_LENGTH_MAX = 1000;

/** What a night knows so far. */
interface Progress {
  place?: Place;
  /** The release that was begun. */
  releaseId?: string;
  version?: string;
}

/**
 * One night of a schedule: releases what has changed since the last release under a version of its
 * own, or ends with "unchanged". Asks nobody: what a person would have to decide fails the night.
 *
 * @throws ApplicationFailure with the code of the release that failed; `release.already-running`;
 *   `release.timed-out` with what the night waited for
 */
export async function nightlyRelease(input: NightlyInput): Promise<NightResult> {
  const nominalTime = scheduledTime().toISOString();
  const show = (memo: Omit<NightMemo, 'nominalTime'>): void => {
    const detail = memo.detail?.slice(0, DETAIL_LENGTH_MAX);
    const shown = { nominalTime, ...memo, ...(detail === undefined ? {} : { detail }) };
    upsertMemo({ [NIGHT_MEMO]: shown });
    const parts = [memo.state, memo.release, detail].filter((part) => part !== undefined);
    setCurrentDetails(`**${parts[0]}** ${parts.slice(1).join(': ')}`.trimEnd());
  };
  const progress: Progress = {};
  try {
    show({ state: 'looking' });
    return await withinNight(input, progress, () => doNight(input, nominalTime, progress, show));
  } catch (error) {
    const failure = withCode(error);
    const { version } = progress;
    const detail = isCancellation(error) ? 'cancelled' : messageOf(failure);
    show({ state: 'failed', ...(version === undefined ? {} : { version }), detail });
    throw failure;
  }
}

/** Nights that are made up for have the time of their own, not that of the making up. */
function scheduledTime(): Date {
  const { searchAttributes, startTime } = workflowInfo();
  const [scheduled] = searchAttributes['TemporalScheduledStartTime'] ?? [];
  return scheduled instanceof Date ? scheduled : startTime;
}

async function doNight(
  input: NightlyInput,
  nominalTime: string,
  progress: Progress,
  show: (memo: Omit<NightMemo, 'nominalTime'>) => void,
): Promise<NightResult> {
  const { timeZone, nightTimeoutMs: _nightTimeoutMs, cron: _cron, ...release } = input;
  const { recipe } = input;
  const night = await look(input, nominalTime, progress);
  const { version, unchangedSince } = night;
  progress.version = version;
  if (unchangedSince !== undefined) {
    const detail = `nothing has changed since ${unchangedSince.version}`;
    show({ state: 'unchanged', version, release: unchangedSince.artefact, detail });
    return { outcome: 'unchanged', version, last: unchangedSince };
  }
  const workflowId = releaseId(recipe.name, version);
  const startedAt = new Date().toISOString();
  show({ state: 'releasing', version, release: workflowId, detail: night.reason });
  progress.releaseId = workflowId;
  const result = await executeChild(releaseModel, {
    workflowId,
    args: [{ ...release, recipe: { ...recipe, version } }],
    staticSummary: `${recipe.name} ${version}`,
    cancellationType: 'WAIT_CANCELLATION_COMPLETED',
    parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
  }).catch((error: unknown) => {
    throw error instanceof WorkflowExecutionAlreadyStartedError ? taken(workflowId) : error;
  });
  const { artefact } = result;
  show({ state: 'released', version, release: artefact, detail: night.reason });
  const last = { artefact, version, startedAt, inputs: night.inputs };
  return { outcome: 'released', version, last, workflowId, release: result };
}

/** Where the release would be done: other hosts may have other disks. */
async function look(
  { recipe, recipeDigest, timeZone, heartbeatTimeoutMs }: NightlyInput,
  nominalTime: string,
  progress: Progress,
): Promise<Night> {
  const { last } = (workflowInfo().lastResult ?? {}) as Partial<NightResult>;
  for (;;) {
    progress.place = await findPlace({});
    const { lookAtNight } = activitiesAt(progress.place, 'control', {
      ...longWork(heartbeatTimeoutMs),
      summary: 'whether anything has changed since the last release',
    });
    try {
      return await lookAtNight({ recipe, recipeDigest, nominalTime, timeZone, last });
    } catch (error) {
      if (codeOf(error) !== HOST_GONE) throw error;
      log.warn('The host that was asked is gone: another is', { ...progress.place });
    }
  }
}

/** Gives a night up before the server does, which would say nothing. */
async function withinNight(
  { nightTimeoutMs }: NightlyInput,
  progress: Progress,
  work: () => Promise<NightResult>,
): Promise<NightResult> {
  const scope = new CancellationScope();
  const timer = new CancellationScope();
  const night = scope.run(work);
  const isOver = timer
    .run(() => sleep(nightTimeoutMs))
    .then(
      () => true,
      () => false,
    );
  const ended = night.then(
    () => false,
    () => false,
  );
  if (!(await Promise.race([ended, isOver]))) {
    timer.cancel();
    return night;
  }
  const doing = await whereabouts(progress);
  scope.cancel();
  await ended;
  const hours = Math.round(nightTimeoutMs / 360_000) / 10;
  throw ApplicationFailure.create({
    type: 'release.timed-out',
    message: `The night was given up after ${hours} h: ${doing}`,
    nonRetryable: true,
  });
}

/** What the release is at; trying is enough. */
async function whereabouts({ place, releaseId }: Progress): Promise<string> {
  if (place === undefined) return 'no worker took it. See that workers run (weldline worker).';
  if (releaseId === undefined) return 'its inputs were still being read.';
  const { askWhereabouts } = activitiesAt(place, 'control', {
    startToCloseTimeout: '30s',
    scheduleToCloseTimeout: '3m',
    summary: 'what the release waits for',
  });
  try {
    return (await askWhereabouts(releaseId)).doing;
  } catch (error) {
    if (isCancellation(error)) throw error;
    log.warn('The release did not say what it waits for', { error });
    return `${releaseId} did not end, and no worker could say why.`;
  }
}

function taken(workflowId: string): ApplicationFailure {
  return ApplicationFailure.create({
    type: 'release.already-running',
    message:
      `${workflowId} is running already, begun by hand or by another schedule, so this night did ` +
      `nothing. Look at it with "weldline status ${workflowId}".`,
    nonRetryable: true,
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
