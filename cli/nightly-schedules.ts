import {
  type Client,
  type ScheduleDescription,
  type ScheduleHandle,
  ScheduleNotFoundError,
  ScheduleOverlapPolicy,
  type WorkflowExecutionInfo,
} from '@temporalio/client';
import { clockAt } from '../config/version-rule.ts';
import { WeldlineError } from '../engine/errors.ts';
import { NIGHT_MEMO, type NightlyInput, type NightMemo } from '../workflows/nightly-messages.ts';
import { usage } from './usage.ts';

/** So many schedules are named to a person who asks for one that is not there. */
const KNOWN_MAX = 10;

/** A night that a schedule began. */
export interface ScheduledNight {
  readonly id: string;
  /** The moment it was scheduled for; ISO 8601, UTC. */
  readonly nominalTime: string;
  readonly startedAt: string;
  readonly endedAt?: string;
  readonly state: NightMemo['state'];
  readonly version?: string;
  /** The release it made or began, or the one that nothing has changed since. */
  readonly release?: string;
  readonly detail?: string;
}

/** Nights in which nothing was released though something may have changed. */
export interface MissedNights {
  /** Dropped, since the one before was still at work. */
  readonly overlap: number;
  /** Not made up for, since the server came back after the catch-up window. */
  readonly catchUp: number;
  readonly failed: number;
}

/** A schedule of nightly releases. */
export interface NightlySchedule {
  readonly id: string;
  readonly handle: ScheduleHandle;
  readonly description: ScheduleDescription;
  readonly input: NightlyInput;
}

/** A server may have schedules of other workflows: those are none of weldline's. */
const WORKFLOW_TYPE = 'nightlyRelease';

/** All nightly schedules of the server, by their ids. */
export async function listSchedules(client: Client): Promise<readonly NightlySchedule[]> {
  const schedules: NightlySchedule[] = [];
  for await (const { scheduleId, action } of client.schedule.list()) {
    if (action?.workflowType !== WORKFLOW_TYPE) continue;
    const schedule = await describeSchedule(client, scheduleId);
    if (schedule !== undefined) schedules.push(schedule);
  }
  return schedules.sort((a, b) => (a.id < b.id ? -1 : 1));
}

/**
 * Finds a schedule by its id, or by the name of its recipe.
 * @throws WeldlineError `schedule.not-found`
 */
export async function findSchedule(client: Client, wanted: string): Promise<NightlySchedule> {
  requireId(wanted);
  for (const id of [wanted, `nightly-${wanted}`]) {
    const schedule = await describeSchedule(client, id);
    if (schedule !== undefined) return schedule;
  }
  const known = (await listSchedules(client)).map(({ id }) => id);
  const shown = known.slice(0, KNOWN_MAX).join(', ');
  throw new WeldlineError(
    'schedule.not-found',
    known.length === 0
      ? `There is no schedule ${wanted}, nor any other. Make one: weldline schedule create <recipe>.`
      : `There is no schedule ${wanted}. There is ${shown} (weldline schedule list).`,
  );
}

/** Ids stand in queries and names of workflows. */
export function requireId(id: string): void {
  if (/^[A-Za-z0-9][\w.-]{0,199}$/.test(id)) return;
  throw usage(`"${id}" is no id of a schedule: letters, digits, ".", "_" and "-", at most 200.`);
}

/** Undefined where there is none, or one that is not weldline's. */
async function describeSchedule(client: Client, id: string): Promise<NightlySchedule | undefined> {
  const handle = client.schedule.getHandle(id);
  try {
    const description = await handle.describe();
    const { action } = description;
    if (action.workflowType !== WORKFLOW_TYPE) return undefined;
    const [input] = action.args as unknown as [NightlyInput];
    return { id, handle, description, input };
  } catch (error) {
    if (error instanceof ScheduleNotFoundError) return undefined;
    throw error;
  }
}

/** The nights of a schedule that the server still knows, the newest first. */
export async function nightsOf(
  client: Client,
  id: string,
  limit: number,
): Promise<readonly ScheduledNight[]> {
  const nights: ScheduledNight[] = [];
  for await (const execution of client.workflow.list({ query: nightsQuery(id), pageSize: limit })) {
    nights.push(toNight(execution));
    if (nights.length === limit) break;
  }
  return nights.sort((a, b) => Date.parse(b.startedAt) - Date.parse(a.startedAt));
}

export async function missedNights(
  client: Client,
  { id, description }: NightlySchedule,
): Promise<MissedNights> {
  const { numActionsSkippedOverlap, numActionsMissedCatchupWindow } = description.info;
  const lost = ['Failed', 'TimedOut', 'Terminated', 'Canceled'].map((state) => `'${state}'`);
  const query = `${nightsQuery(id)} AND ExecutionStatus IN (${lost.join(', ')})`;
  const { count } = await client.workflow.count(query);
  return {
    overlap: numActionsSkippedOverlap,
    catchUp: numActionsMissedCatchupWindow,
    failed: count,
  };
}

function nightsQuery(id: string): string {
  return `TemporalScheduledById = '${id}' AND WorkflowType = '${WORKFLOW_TYPE}'`;
}

function toNight(execution: WorkflowExecutionInfo): ScheduledNight {
  const { workflowId, memo = {}, startTime, closeTime, status } = execution;
  const startedAt = startTime.toISOString();
  const told = (memo[NIGHT_MEMO] ?? { nominalTime: startedAt, state: 'looking' }) as NightMemo;
  const ended = closeTime === undefined ? {} : { endedAt: closeTime.toISOString() };
  const night = { id: workflowId, startedAt, ...ended, ...told };
  if (status.name === 'RUNNING' || status.name === 'COMPLETED' || told.state === 'failed') {
    return night;
  }
  return { ...night, state: 'failed', detail: REASONS[status.name] ?? status.name.toLowerCase() };
}

/** What the server says of nights that said nothing themselves. */
const REASONS: Readonly<Record<string, string>> = {
  TIMED_OUT: 'no worker ended it before its timeout. See that workers run (weldline worker).',
  TERMINATED: 'terminated by a person',
  CANCELLED: 'cancelled',
};

/** `2026-11-28 02:00`, as clocks in the time zone show it. */
export function shortTime(moment: Date, timeZone: string): string {
  const { date, time } = clockAt(moment, timeZone);
  const day = `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}`;
  return `${day} ${time.slice(0, 2)}:${time.slice(2, 4)}`;
}

/** A night in a line: `released 1.2.20261128`, `failed 1.2.20261128: …`. */
export function describeNight({ state, version = '', detail }: ScheduledNight): string {
  const said = state === 'looking' ? 'running' : `${state} ${version}`.trimEnd();
  const [line = '', next = ''] = (detail ?? '').split('\n', 2);
  if (line === '') return said;
  // What a list is introduced with says nothing by itself.
  return `${said}: ${line.endsWith(':') ? `${line} ${next.trim()}`.trimEnd() : line}`;
}

/** `2 skipped (overlap), 1 failed`, or nothing. */
export function describeMissed({ overlap, catchUp, failed }: MissedNights): string {
  const parts = [
    overlap > 0 ? `${overlap} skipped (overlap)` : '',
    catchUp > 0 ? `${catchUp} lost (catch-up window)` : '',
    failed > 0 ? `${failed} failed` : '',
  ];
  return parts.filter((part) => part !== '').join(', ');
}

/** Overlap policies by their names on the command line. */
export const OVERLAP_POLICIES = {
  skip: ScheduleOverlapPolicy.SKIP,
  'buffer-one': ScheduleOverlapPolicy.BUFFER_ONE,
  'cancel-other': ScheduleOverlapPolicy.CANCEL_OTHER,
} as const;

export type OverlapName = keyof typeof OVERLAP_POLICIES;

export function overlapName(policy: ScheduleOverlapPolicy = ScheduleOverlapPolicy.SKIP): string {
  const found = Object.entries(OVERLAP_POLICIES).find(([, each]) => each === policy);
  return found?.[0] ?? policy.toLowerCase();
}
