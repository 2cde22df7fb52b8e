import type { WorkflowHandle } from '@temporalio/client';
import type { releaseModel } from '../workflows/release-model.ts';
import { EXIT } from './exit-codes.ts';
import { formatTable } from './format.ts';
import {
  describeMissed,
  describeNight,
  findSchedule,
  listSchedules,
  type MissedNights,
  missedNights,
  type NightlySchedule,
  nightsOf,
  overlapName,
  type ScheduledNight,
  shortTime,
} from './nightly-schedules.ts';
import type { Output } from './output.ts';
import { shortDuration } from './read-duration.ts';
import { withSession } from './release.ts';
import { queryStatus } from './release-handle.ts';
import type { TemporalSession } from './temporal-session.ts';

const NIGHTS_SHOWN = 14;

/** `weldline schedule list`: all schedules, how their last night ended, and the nights missed. */
export function runScheduleList(output: Output): Promise<number> {
  return withSession(output, async ({ client }) => {
    const schedules = await listSchedules(client);
    const listed = [];
    for (const schedule of schedules) {
      const [last] = await nightsOf(client, schedule.id, 1);
      listed.push({ schedule, last, missed: await missedNights(client, schedule) });
    }
    if (listed.length === 0) {
      output.line(
        'No schedules yet. Make one: weldline schedule create <recipe> --cron "0 2 * * *"',
      );
    } else {
      const rows = listed.map(({ schedule, last, missed }) => row(schedule, last, missed));
      output.line(formatTable([HEADER, ...rows]));
    }
    output.result(listed.map((each) => summaryOf(each.schedule, each.last, each.missed)));
    return EXIT.ok;
  });
}

const HEADER = ['schedule', 'cron', 'time zone', 'next', 'missed', 'last night'];

function row(
  { id, input, description }: NightlySchedule,
  last: ScheduledNight | undefined,
  missed: MissedNights,
): string[] {
  const [next] = description.info.nextActionTimes;
  const { timeZone, cron } = input;
  const when = next === undefined ? 'never' : shortTime(next, timeZone);
  return [
    id,
    cron.join(' and '),
    timeZone,
    description.state.paused ? 'paused' : when,
    describeMissed(missed) || 'none',
    last === undefined ? 'none yet' : describeNight(last),
  ];
}

/** `weldline schedule show`: one schedule, what it is set to, its last nights. */
export function runScheduleShow(wanted: string, output: Output): Promise<number> {
  return withSession(output, async (session) => {
    const { client } = session;
    const schedule = await findSchedule(client, wanted);
    const found = await nightsOf(client, schedule.id, NIGHTS_SHOWN);
    const nights: ScheduledNight[] = [];
    for (const night of found) nights.push(await withWaiting(session, night));
    const missed = await missedNights(client, schedule);
    const { description, input } = schedule;
    const { timeZone } = input;
    const { paused } = description.state;
    output.line(`${schedule.id}${paused ? '  paused' : ''}`);
    output.line(formatTable(settings(schedule, missed)));
    output.line(nights.length === 0 ? 'no nights yet' : 'nights, the newest first');
    const rows = nights.map((night) => [
      '',
      shortTime(new Date(night.nominalTime), timeZone),
      describeNight(night),
    ]);
    if (rows.length > 0) output.line(formatTable(rows));
    output.result({ ...summaryOf(schedule, nights[0], missed), nights });
    return EXIT.ok;
  });
}

function settings({ description, input }: NightlySchedule, missed: MissedNights): string[][] {
  const { policies, info, action } = description;
  const { timeZone, cron, recipe } = input;
  const times = info.nextActionTimes.slice(0, 3).map((moment) => shortTime(moment, timeZone));
  const { workflowExecutionTimeout: timeout } = action;
  const rest = [
    `overlap ${overlapName(policies.overlap)}`,
    `catch-up ${shortDuration(policies.catchupWindow)}`,
    ...(typeof timeout === 'number' ? [`timeout ${shortDuration(timeout)}`] : []),
    ...(policies.pauseOnFailure ? ['pauses on failure'] : []),
  ];
  return [
    ['', 'recipe', `${recipe.name} ${recipe.version}`],
    ['', 'cron', `${cron.join(' and ')} (${timeZone})`],
    ['', 'next', times.join(', ') || 'never'],
    ['', 'policy', rest.join(', ')],
    ['', 'missed', describeMissed(missed) || 'none'],
    ...(description.state.note ? [['', 'note', description.state.note]] : []),
  ];
}

function summaryOf(
  { id, input, description }: NightlySchedule,
  last: ScheduledNight | undefined,
  missed: MissedNights,
): object {
  const { policies, info, state } = description;
  return {
    id,
    recipe: { name: input.recipe.name, version: input.recipe.version },
    cron: input.cron,
    timeZone: input.timeZone,
    next: info.nextActionTimes.map((moment) => moment.toISOString()),
    paused: state.paused,
    ...(state.note ? { note: state.note } : {}),
    overlap: overlapName(policies.overlap),
    catchUpMs: policies.catchupWindow,
    pauseOnFailure: policies.pauseOnFailure,
    missed,
    ...(last === undefined ? {} : { last }),
  };
}

/** What the release of a night that is under way waits for. */
async function withWaiting(
  session: TemporalSession,
  night: ScheduledNight,
): Promise<ScheduledNight> {
  if (night.state !== 'releasing' || night.release === undefined) return night;
  const handle = session.client.workflow.getHandle(night.release);
  try {
    const status = await queryStatus(session, handle as WorkflowHandle<typeof releaseModel>);
    const { waiting } = status;
    if (waiting === undefined) return night;
    return { ...night, detail: `waits (${waiting.stage}): ${waiting.message}` };
  } catch {
    return night;
  }
}
