import type { CommandSpec } from './command-spec.ts';
import type { ListCommand } from './list.ts';
import type { LogsCommand } from './logs.ts';
import type { PauseCommand } from './pause.ts';
import type { WatchOptions } from './watch-release.ts';

/** Commands that look at releases and steer them. */

export const STATUS: CommandSpec<[string | undefined]> = {
  usage: 'status [release]',
  description:
    'show how far a release is, what it does and what it waits for (default: the last one)',
  examples: ['weldline status', 'weldline status support-assistant-1.2.0 --json'],
  run: async (output, release) => (await import('./status.ts')).runStatus(release, output),
};

export const LIST: CommandSpec<[ListCommand]> = {
  usage: 'list',
  description: 'list releases, the newest first',
  examples: ['weldline list', 'weldline list --all --limit 200'],
  options: (command) =>
    command
      .option('--all', 'a line for every run, not only the last one of each release')
      .option('--limit <number>', 'lines (default: 50)'),
  run: async (output, options) => (await import('./list.ts')).runList(options, output),
};

export const WATCH: CommandSpec<[string | undefined, WatchOptions]> = {
  usage: 'watch [release]',
  description: 'follow a release until it ends or waits for a person (default: the last one)',
  examples: ['weldline watch', 'weldline watch support-assistant-1.2.0 --follow'],
  options: (command) => command.option('--follow', 'go on while it waits, or is paused'),
  run: async (output, release, options) =>
    (await import('./watch.ts')).runWatch(release, options, output),
};

export const LOGS: CommandSpec<[string | undefined, LogsCommand]> = {
  usage: 'logs [release]',
  description: 'print what workers wrote of a release (default: the one written to last)',
  examples: ['weldline logs', 'weldline logs support-assistant-1.2.0 --follow'],
  options: (command) =>
    command
      .option('--follow', 'go on as lines are written')
      .option('--tools', 'also what llama.cpp and other programs printed'),
  run: async (output, release, options) =>
    (await import('./logs.ts')).runLogs(release, options, output),
};

export const PAUSE: CommandSpec<[string | undefined, PauseCommand]> = {
  usage: 'pause [release]',
  description: 'stop all work on a release until it is resumed (default: the last one)',
  examples: ['weldline pause', 'weldline pause support-assistant-1.2.0 --by ann'],
  options: (command) =>
    command.option('--by <name>', 'who says so (default: the name of the user)'),
  run: async (output, release, options) =>
    (await import('./pause.ts')).runPause(release, options, output),
};

export const RESUME: CommandSpec<[string | undefined]> = {
  usage: 'resume [release]',
  description:
    'go on with a release that waits, is paused, was interrupted, failed, or was lost with its ' +
    'server (default: the last one)',
  examples: ['weldline resume', 'weldline resume support-assistant-1.2.0'],
  run: async (output, release) => (await import('./resume.ts')).runResume(release, output),
};

export const RETRY: CommandSpec<[string, string | undefined]> = {
  usage: 'retry <stage> [release]',
  description:
    'begin a stage that waits, or fails again and again, at once (default: the last one)',
  examples: ['weldline retry publish', 'weldline retry fetch-base support-assistant-1.2.0'],
  run: async (output, stage, release) =>
    (await import('./retry.ts')).runRetry(stage, release, output),
};

export const CANCEL: CommandSpec<[string]> = {
  usage: 'cancel <release>',
  description: 'end a running release; finished work is kept, what is half sent is removed',
  examples: ['weldline cancel support-assistant-1.2.0'],
  run: async (output, release) => (await import('./cancel.ts')).runCancel(release, output),
};
