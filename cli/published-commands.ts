import type { Command } from 'commander';
import { type CommandSpec, collect } from './command-spec.ts';
import type { AliasCommand } from './promote.ts';
import type { PruneCommand } from './prune.ts';

/** What can be done with releases that are published. */

function targetOption(command: Command): Command {
  return command.option(
    '--target <name>',
    'only at this target, as it is printed; may be repeated',
    collect,
  );
}

export const PROMOTE: CommandSpec<[string, string, AliasCommand]> = {
  usage: 'promote <release> <alias>',
  description:
    'point an alias such as production at a release: a recipe, the id of a release, or a place',
  examples: [
    'weldline promote recipe.yaml production',
    'weldline promote support-assistant-1.2.0 production',
    'weldline promote s3://models/merged-llama-1.2.0-adapter-support-1 production',
  ],
  options: targetOption,
  run: async (output, release, alias, options) =>
    (await import('./promote.ts')).runPromote(release, alias, options, output),
};

export const ROLLBACK: CommandSpec<[string, string, AliasCommand]> = {
  usage: 'rollback <release> <alias>',
  description: 'point an alias that points at a release back at the one before it',
  examples: [
    'weldline rollback recipe.yaml production',
    'weldline rollback ./releases/merged-llama-1.2.0-adapter-support-1 production',
  ],
  options: targetOption,
  run: async (output, release, alias, options) =>
    (await import('./promote.ts')).runRollback(release, alias, options, output),
};

export const PRUNE: CommandSpec<[string | undefined, PruneCommand]> = {
  usage: 'prune [recipe]',
  description:
    'remove weights of old releases of a recipe (never what an alias points at, never adapters), or ' +
    'old files of the workspace; says what it would do, without --yes',
  examples: [
    'weldline prune recipe.yaml --keep 5',
    'weldline prune recipe.yaml --keep 2 --keep-days 90 --yes',
    'weldline prune --workspace --keep-days 14 --yes',
  ],
  options: (command) =>
    targetOption(
      command
        .option('--keep <count>', 'releases of each part that keep their weights (default: 3)')
        .option(
          '--keep-days <days>',
          'what is younger keeps its weights too (of the workspace: its files; default: 30)',
        ),
    )
      .option('--workspace', 'old merges, conversions and distributions in WELDLINE_HOME')
      .option('--yes', 'do it'),
  run: async (output, recipe, options) =>
    (await import('./prune.ts')).runPrune(recipe, options, output),
};
