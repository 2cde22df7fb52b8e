import { type Client, ScheduleAlreadyRunning, type ScheduleOptions } from '@temporalio/client';
import { plannedTargets } from '../activities/check-targets.ts';
import { type LoadedRecipe, loadRecipe, type Recipe } from '../config/recipe.ts';
import { isVersionRule, requireTimeZone, withVersion } from '../config/version-rule.ts';
import { WeldlineError } from '../engine/errors.ts';
import { TASK_QUEUE } from '../workers/task-queues.ts';
import type { NightlyInput } from '../workflows/nightly-messages.ts';
import { EXIT } from './exit-codes.ts';
import {
  findSchedule,
  type NightlySchedule,
  OVERLAP_POLICIES,
  type OverlapName,
  requireId,
  shortTime,
} from './nightly-schedules.ts';
import type { Output } from './output.ts';
import { readDuration } from './read-duration.ts';
import { inputFor, withSession } from './release.ts';
import type { TemporalSession } from './temporal-session.ts';
import { usage } from './usage.ts';

export interface ScheduleCreateCommand {
  readonly cron: readonly string[];
  readonly timezone: string;
  readonly overlap: OverlapName;
  readonly catchUp: string;
  readonly timeout: string;
  readonly pauseOnFailure?: boolean;
  readonly note?: string;
  readonly id?: string;
  readonly replace?: boolean;
}

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** With less, a server that is busy for a moment would lose nights. */
const CATCH_UP = { minMs: MINUTE_MS, maxMs: 365 * DAY_MS };
/** A week: what takes longer is no nightly. */
const TIMEOUT = { minMs: 10 * MINUTE_MS, maxMs: 7 * DAY_MS };
/** What a night has to say why it is given up, and to clean up, before the server ends it. */
const LAST_WORDS_MS = 30 * MINUTE_MS;
const TIMES_SHOWN = 3;

/** `weldline schedule create`: has a recipe released again and again. */
export async function runScheduleCreate(
  recipePath: string,
  options: ScheduleCreateCommand,
  output: Output,
): Promise<number> {
  const loaded = await loadRecipe(recipePath);
  requireNightly(loaded, recipePath);
  requireTimeZone(options.timezone);
  for (const cron of options.cron) requireCron(cron);
  const id = options.id ?? `nightly-${loaded.recipe.name}`;
  requireId(id);
  const catchUpMs = readDuration('--catch-up', options.catchUp, CATCH_UP);
  const timeoutMs = readDuration('--timeout', options.timeout, TIMEOUT);
  return withSession(output, async (session) => {
    const input = nightlyInput(session, loaded, options, timeoutMs);
    const schedule = scheduleOptions(id, input, { catchUpMs, timeoutMs }, options);
    await write(session.client, schedule, options);
    return tellCreated(await findSchedule(session.client, id), session, output);
  });
}

/** A night that could not be told from the one before would be a conflict from the second on. */
function requireNightly({ recipe }: LoadedRecipe, path: string): void {
  if (!isVersionRule(recipe.version)) {
    throw new WeldlineError(
      'recipe.invalid',
      `${path} has the version ${recipe.version}, and each night needs one of its own. Write a rule ` +
        `such as version: ${exampleRule(recipe.version)}`,
    );
  }
  if (recipe.publish.length === 0) {
    throw new WeldlineError(
      'recipe.invalid',
      `${path} names no targets under "publish", so a night would make what nobody gets. Name one.`,
    );
  }
  plannedTargets(recipe);
}

/** `1.2.{date}` of 1.2.0. */
function exampleRule(version: string): string {
  const [, start = version] = /^(v?\d+\.\d+)\b/.exec(version) ?? [];
  return `${start}.{date}`;
}

/** The server takes a zone and more in here; each thing has one place where it is said. */
function requireCron(cron: string): void {
  if (/^\s*(CRON_)?TZ=/.test(cron)) {
    throw usage(`--cron is "${cron}": say the time zone with --timezone.`);
  }
  const fields = cron.trim().split(/\s+/);
  const isKnown = /^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$/.test(cron.trim());
  if (isKnown || fields.length === 5) return;
  throw usage(
    `--cron is "${cron}", with ${fields.length} field(s): expected 5, minute hour day-of-month month ` +
      "day-of-week, such as '0 2 * * *' (quoted), or @daily and the like.",
  );
}

function nightlyInput(
  session: TemporalSession,
  loaded: LoadedRecipe,
  { cron, timezone }: ScheduleCreateCommand,
  timeoutMs: number,
): NightlyInput {
  return {
    ...inputFor(session, { recipe: unattended(loaded), recipeDigest: loaded.digest }),
    cron,
    timeZone: timezone,
    nightTimeoutMs: timeoutMs - Math.min(LAST_WORDS_MS, timeoutMs / 10),
  };
}

/** Nobody is there to be asked at night, unless the recipe says so itself. */
function unattended({ recipe, onFailure = 'stop' }: LoadedRecipe): Recipe {
  const { evaluation } = recipe;
  return evaluation === undefined
    ? recipe
    : { ...recipe, evaluation: { ...evaluation, onFailure } };
}

function scheduleOptions(
  id: string,
  input: NightlyInput,
  { catchUpMs, timeoutMs }: { readonly catchUpMs: number; readonly timeoutMs: number },
  options: ScheduleCreateCommand,
): ScheduleOptions {
  return {
    scheduleId: id,
    spec: { cronExpressions: [...options.cron], timezone: options.timezone },
    action: {
      type: 'startWorkflow',
      workflowType: 'nightlyRelease',
      workflowId: id,
      taskQueue: TASK_QUEUE,
      args: [input],
      workflowExecutionTimeout: timeoutMs,
      staticSummary: `${input.recipe.name} ${input.recipe.version}`,
    },
    policies: {
      overlap: OVERLAP_POLICIES[options.overlap],
      catchupWindow: catchUpMs,
      pauseOnFailure: options.pauseOnFailure === true,
    },
    ...(options.note === undefined ? {} : { state: { note: options.note } }),
  };
}

async function write(
  client: Client,
  schedule: ScheduleOptions,
  options: ScheduleCreateCommand,
): Promise<void> {
  const { scheduleId, state: { note } = {}, ...rest } = schedule;
  try {
    await client.schedule.create(schedule);
  } catch (error) {
    if (!(error instanceof ScheduleAlreadyRunning)) throw toScheduleError(error, options);
    if (options.replace !== true) {
      throw new WeldlineError(
        'schedule.exists',
        `There is a schedule ${scheduleId} already. Give --replace to have it do this from now on, or ` +
          'another --id.',
      );
    }
    const { handle } = await findSchedule(client, scheduleId);
    await handle
      .update(({ state }) => ({
        ...rest,
        state: { paused: state.paused, note: note ?? state.note ?? '' },
      }))
      .catch((reason: unknown) => {
        throw toScheduleError(reason, options);
      });
  }
}

/** The client throws nothing but the server's words where a schedule cannot be one. */
function toScheduleError(error: unknown, { cron, timezone }: ScheduleCreateCommand): unknown {
  if (!(error instanceof TypeError)) return error;
  const shown = cron.map((each) => `"${each}"`).join(' and ');
  return usage(`--cron is ${shown} in ${timezone}, which the server refuses: ${error.message}.`);
}

function tellCreated(
  { id, description, input }: NightlySchedule,
  { embedded }: TemporalSession,
  output: Output,
): number {
  const { timeZone, recipe } = input;
  const next = description.info.nextActionTimes.slice(0, TIMES_SHOWN);
  const versions = next.map((moment) => withVersion(recipe, moment, timeZone).version);
  output.line(`Schedule ${id}`);
  for (const [index, moment] of next.entries()) {
    output.line(`  ${shortTime(moment, timeZone)} ${timeZone}  ${recipe.name} ${versions[index]}`);
  }
  if (description.state.paused) output.line('  paused: weldline schedule resume goes on with it');
  if (next.length === 0) output.warn('no moment ever matches its cron expression: it never runs.');
  if (new Set(versions).size < versions.length) {
    output.warn(
      `several runs of it have the same version ${versions[0]}: the second would be refused by the ` +
        'targets where anything changed. Add {time} to the version.',
    );
  }
  if (embedded) {
    output.note(
      'It runs while a weldline process with workers runs on this machine: keep "weldline worker" ' +
        'running (docs/scheduling.md).',
    );
  }
  output.result({ id, timeZone, next: next.map((moment) => moment.toISOString()), versions });
  return EXIT.ok;
}
