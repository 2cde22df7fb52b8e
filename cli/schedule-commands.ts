import { type Command, Option } from 'commander';
import { addCommand, type CommandSpec, collect } from './command-spec.ts';
import type { ScheduleBackfillCommand, ScheduleNoteCommand } from './schedule-control.ts';
import type { ScheduleCreateCommand } from './schedule-create.ts';

/** What is released again and again. Defaults and their reasons: docs/scheduling.md. */

const CREATE: CommandSpec<[string, ScheduleCreateCommand]> = {
  usage: 'create <recipe>',
  description: 'release a recipe with a version such as 1.2.{date} again and again',
  examples: [
    "weldline schedule create nightly.yaml --cron '0 2 * * *' --timezone Europe/Berlin",
    "weldline schedule create nightly.yaml --cron '0 2 * * 1-5' --overlap buffer-one --replace",
  ],
  options: (command) =>
    command
      .requiredOption('--cron <fields>', "when, e.g. '0 2 * * *'; may be repeated", collect)
      .option('--timezone <name>', 'whose clocks are meant, and whose date is {date}', 'UTC')
      .addOption(
        new Option('--overlap <policy>', 'where a night is still at work when the next is due')
          .choices(['skip', 'buffer-one', 'cancel-other'])
          .default('skip'),
      )
      .option('--catch-up <time>', 'how late a night may begin after a server was away', '12h')
      .option('--timeout <time>', 'after which a night is given up', '20h')
      .option('--pause-on-failure', 'no more nights after one that failed')
      .option('--note <text>', 'what people should know of it')
      .option('--id <id>', 'of the schedule (default: nightly-<name of the recipe>)')
      .option('--replace', 'change the schedule of this id, if there is one'),
  run: async (output, recipe, options) =>
    (await import('./schedule-create.ts')).runScheduleCreate(recipe, options, output),
};

const LIST: CommandSpec<[]> = {
  usage: 'list',
  description: 'list schedules: when they run next, how they ended last, what they missed',
  examples: ['weldline schedule list', 'weldline schedule list --json'],
  run: async (output) => (await import('./schedule-list.ts')).runScheduleList(output),
};

const SHOW: CommandSpec<[string]> = {
  usage: 'show <schedule>',
  description: 'show a schedule and its last nights',
  examples: ['weldline schedule show nightly-support-assistant'],
  run: async (output, schedule) =>
    (await import('./schedule-list.ts')).runScheduleShow(schedule, output),
};

const noteOption = (command: Command): Command => command.option('--note <text>', 'why');

const PAUSE: CommandSpec<[string, ScheduleNoteCommand]> = {
  usage: 'pause <schedule>',
  description: 'no nights until it is resumed; one under way goes on',
  examples: ['weldline schedule pause nightly-support-assistant --note "base moves next week"'],
  options: noteOption,
  run: async (output, schedule, options) =>
    (await import('./schedule-control.ts')).runSchedulePause(schedule, options, output),
};

const RESUME: CommandSpec<[string, ScheduleNoteCommand]> = {
  usage: 'resume <schedule>',
  description: 'go on with a schedule that was paused',
  examples: ['weldline schedule resume nightly-support-assistant'],
  options: noteOption,
  run: async (output, schedule, options) =>
    (await import('./schedule-control.ts')).runScheduleResume(schedule, options, output),
};

const TRIGGER: CommandSpec<[string]> = {
  usage: 'trigger <schedule>',
  description: 'run it now, beside its times',
  examples: ['weldline schedule trigger nightly-support-assistant'],
  run: async (output, schedule) =>
    (await import('./schedule-control.ts')).runScheduleTrigger(schedule, output),
};

const BACKFILL: CommandSpec<[string, ScheduleBackfillCommand]> = {
  usage: 'backfill <schedule>',
  description: 'make up for nights, one after the other, each under its own date',
  examples: [
    'weldline schedule backfill nightly-support-assistant --from 2026-11-01 --to 2026-11-03',
  ],
  options: (command) =>
    command
      .requiredOption('--from <day>', 'the first day, in the time zone of the schedule')
      .requiredOption('--to <day>', 'the last day'),
  run: async (output, schedule, options) =>
    (await import('./schedule-control.ts')).runScheduleBackfill(schedule, options, output),
};

const DELETE: CommandSpec<[string]> = {
  usage: 'delete <schedule>',
  description: 'no more nights; what it released stays',
  examples: ['weldline schedule delete nightly-support-assistant'],
  run: async (output, schedule) =>
    (await import('./schedule-control.ts')).runScheduleDelete(schedule, output),
};

export function addScheduleCommands(program: Command): void {
  const schedule = program
    .command('schedule')
    .description('releases that are made again and again, where anything has changed');
  addCommand(schedule, CREATE);
  addCommand(schedule, LIST);
  addCommand(schedule, SHOW);
  addCommand(schedule, PAUSE);
  addCommand(schedule, RESUME);
  addCommand(schedule, TRIGGER);
  addCommand(schedule, BACKFILL);
  addCommand(schedule, DELETE);
}
