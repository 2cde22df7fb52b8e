import { type ScheduleDescription, ScheduleOverlapPolicy } from '@temporalio/client';
import { WeldlineError } from '../engine/errors.ts';
import { EXIT } from './exit-codes.ts';
import { findSchedule, type NightlySchedule, shortTime } from './nightly-schedules.ts';
import type { Output } from './output.ts';
import { readMoment } from './read-moment.ts';
import { withSession } from './release.ts';
import { usage } from './usage.ts';
import { userName } from './user-name.ts';

export interface ScheduleNoteCommand {
  readonly note?: string;
}

export interface ScheduleBackfillCommand {
  readonly from: string;
  readonly to: string;
}

/** More nights than this at once are a slip in a year. */
const BACKFILL_DAYS_MAX = 400;
const DAY_MS = 86_400_000;

/** `weldline schedule pause`: no nights until it is resumed; one under way goes on. */
export function runSchedulePause(
  wanted: string,
  { note }: ScheduleNoteCommand,
  output: Output,
): Promise<number> {
  return withSchedule(wanted, output, async ({ id, handle, description }) => {
    await handle.pause(noteOf('paused', note, description));
    output.line(`Paused ${id}. weldline schedule resume ${id} goes on with it.`);
    output.result({ id, paused: true });
  });
}

/** `weldline schedule resume` */
export function runScheduleResume(
  wanted: string,
  { note }: ScheduleNoteCommand,
  output: Output,
): Promise<number> {
  return withSchedule(wanted, output, async ({ id, handle, input, description }) => {
    await handle.unpause(noteOf('resumed', note, description));
    const { info } = await handle.describe();
    const [next] = info.nextActionTimes;
    const when = next === undefined ? 'never' : shortTime(next, input.timeZone);
    output.line(`Resumed ${id}. Next: ${when} ${input.timeZone}`);
    output.result({ id, paused: false, next: next?.toISOString() });
  });
}

/** `weldline schedule trigger`: a night now, under the version of this moment. */
export function runScheduleTrigger(wanted: string, output: Output): Promise<number> {
  return withSchedule(wanted, output, async ({ id, handle, description }) => {
    const { overlap } = description.policies;
    const [running] = description.info.runningActions;
    if (running !== undefined && overlap === ScheduleOverlapPolicy.SKIP) {
      throw new WeldlineError(
        'release.already-running',
        `${running.workflow.workflowId} is still at work, and ${id} skips what would overlap. See ` +
          `weldline schedule show ${id}.`,
      );
    }
    await handle.trigger(overlap);
    output.line(`Triggered ${id}. See weldline schedule show ${id}.`);
    output.result({ id });
  });
}

/** `weldline schedule backfill`: nights that were missed, one after the other, each under its date. */
export function runScheduleBackfill(
  wanted: string,
  { from, to }: ScheduleBackfillCommand,
  output: Output,
): Promise<number> {
  return withSchedule(wanted, output, async ({ id, handle, input }) => {
    const start = readMoment('--from', from, input.timeZone, 'begin');
    const end = readMoment('--to', to, input.timeZone, 'end');
    if (start >= end) throw usage(`--from ${from} is not before --to ${to}.`);
    if (end.getTime() - start.getTime() > BACKFILL_DAYS_MAX * DAY_MS) {
      throw usage(`From ${from} to ${to} is more than ${BACKFILL_DAYS_MAX} days: do it in parts.`);
    }
    if (start.getTime() > Date.now()) throw usage(`--from ${from} lies in the future.`);
    // Nights of the future would have been released before their time comes.
    const until = new Date(Math.min(end.getTime(), Date.now()));
    await handle.backfill({ start, end: until, overlap: ScheduleOverlapPolicy.BUFFER_ALL });
    output.line(`${id} makes up for its nights from ${from} to ${to}, one after the other.`);
    output.line(`See weldline schedule show ${id}.`);
    output.result({ id, from: start.toISOString(), to: until.toISOString() });
  });
}

/** `weldline schedule delete`: no more nights; what it released stays, and one under way goes on. */
export function runScheduleDelete(wanted: string, output: Output): Promise<number> {
  return withSchedule(wanted, output, async ({ id, handle }) => {
    await handle.delete();
    output.line(`Deleted ${id}. What it released stays.`);
    output.result({ id, deleted: true });
  });
}

/** A schedule has one note, and a new one is in the place of the old one. */
function noteOf(verb: string, note: string | undefined, { state }: ScheduleDescription): string {
  return note || state.note || `${verb} by ${userName()}`;
}

function withSchedule(
  wanted: string,
  output: Output,
  work: (schedule: NightlySchedule) => Promise<void>,
): Promise<number> {
  return withSession(output, async ({ client }) => {
    await work(await findSchedule(client, wanted));
    return EXIT.ok;
  });
}
