#!/usr/bin/env node
import { Command, CommanderError, Option } from 'commander';
import { ENGINE_VERSION } from '../engine/version.ts';
import { EXIT } from './exit-codes.ts';
import { Output } from './output.ts';

type Options = Record<string, unknown>;

/**
 * Declares a command. Its code is loaded when it is run: `--help` must not wait for Temporal.
 * @param run gets the arguments as commander hands them to an action, and the output
 */
function command(
  program: Command,
  usage: string,
  description: string,
  run: (output: Output, ...args: never[]) => Promise<number>,
): Command {
  return program
    .command(usage)
    .description(description)
    .option('--json', 'print one JSON object for scripts')
    .action(async (...args: unknown[]) => {
      const self = args.at(-1) as Command;
      const output = new Output((self.opts() as { json?: boolean }).json === true);
      try {
        process.exitCode = await run(output, ...(args.slice(0, -1) as never[]));
      } catch (error) {
        process.exitCode = output.error(error);
      }
    });
}

const collect = (value: string, previous: string[]): string[] => [...previous, value];

function addMergeOptions(target: Command): Command {
  return target
    .option('--adapter <model>', 'adapter: a directory or hf://org/name', collect, [])
    .addOption(
      new Option(
        '--dtype <dtype>',
        'dtype of all output tensors (default: as in the base)',
      ).choices(['bfloat16', 'float16', 'float32']),
    )
    .option('--max-shard-size <size>', "largest output file, e.g. 5GB (default: the base's files)")
    .option('--threads <count>', 'worker threads (default: the processors, at most 8)')
    .option('--memory-budget <size>', 'memory the merge may use (default: 200MB)');
}

function buildProgram(): Command {
  const program = new Command('weldline')
    .description('Durable release pipelines for LoRA adapters.')
    .version(ENGINE_VERSION)
    .showHelpAfterError('(see --help)')
    .exitOverride();
  program.addHelpText(
    'after',
    `
Examples:
  $ weldline release recipe.yaml            release what the recipe describes
  $ weldline status                         how far the last release is
  $ weldline resume                         go on after a crash, or when a cause is mended
  $ weldline merge --base ./llama --adapter ./adapter --output ./merged

Exit status: 0 done, 1 failed, 2 wrong command line or recipe, 3 waits for a person,
130 interrupted. WELDLINE_HOME is where the workspace is; TEMPORAL_ADDRESS names a server,
without it weldline runs its own.`,
  );

  command(
    program,
    'release <recipe>',
    'release what a recipe describes; run again, it goes on where it stopped',
    async (output, recipe: string, options: Options) =>
      (await import('./release.ts')).runRelease(recipe, options, output),
  ).option('--detach', 'start it and return (with a Temporal server of your own)');
  command(
    program,
    'status [release]',
    'show how far a release is (default: the last one)',
    async (output, release: string | undefined) =>
      (await import('./status.ts')).runStatus(release, output),
  );
  command(program, 'list', 'list releases, the newest first', async (output) =>
    (await import('./list.ts')).runList(output),
  );
  command(
    program,
    'resume [release]',
    'go on with a release that waits, was interrupted or failed (default: the last one)',
    async (output, release: string | undefined) =>
      (await import('./resume.ts')).runResume(release, output),
  );
  command(
    program,
    'cancel <release>',
    'end a running release; finished work is kept',
    async (output, release: string) => (await import('./cancel.ts')).runCancel(release, output),
  );
  addMergeOptions(
    command(
      program,
      'plan [recipe]',
      'show what a merge would do: tensors, bytes, memory, disk, warnings',
      async (output, recipe: string | undefined, options: Options) =>
        (await import('./plan.ts')).runPlan(recipe, options, output),
    ).option('--base <model>', 'base: a directory or hf://org/name'),
  ).option('--tensors', 'list every tensor');
  addMergeOptions(
    command(
      program,
      'merge',
      'merge an adapter into a base in this process, without a server',
      async (output, options: Options & { base: string; adapter: string[]; output: string }) =>
        (await import('./merge.ts')).runMerge(options, output),
    )
      .requiredOption('--base <model>', 'base: a directory or hf://org/name')
      .requiredOption('--output <directory>', 'where the merged checkpoint goes'),
  );
  command(
    program,
    'verify <directory>',
    'check a merged checkpoint against its manifest',
    async (output, directory: string) => (await import('./verify.ts')).runVerify(directory, output),
  );
  command(program, 'worker', 'work on releases until stopped', async (output) =>
    (await import('./worker.ts')).runWorker(output),
  );
  return program;
}

// The reader of a pipe may leave early (head): that is its right, and no error of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  throw error;
});

try {
  await buildProgram().parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  // Help and version end here too, with status 0; everything else is a wrong command line.
  process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
}
