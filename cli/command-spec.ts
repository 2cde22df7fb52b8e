import type { Command } from 'commander';
import { Output } from './output.ts';

export interface CommandSpec<Args extends readonly unknown[]> {
  /** Name and arguments. */
  readonly usage: string;
  readonly description: string;
  readonly examples: readonly string[];
  readonly options?: (command: Command) => Command;
  /** Loads the command's code when it is run: `--help` must not wait for Temporal. */
  readonly run: (output: Output, ...args: Args) => Promise<number>;
}

/** Of an option that may be repeated. */
export const collect = (value: string, previous: string[] = []): string[] => [...previous, value];

export function addCommand<Args extends readonly unknown[]>(
  program: Command,
  spec: CommandSpec<Args>,
): void {
  const command = program
    .command(spec.usage)
    .description(spec.description)
    .addHelpText('after', exampleText(spec.examples))
    .action(async (...args: unknown[]) => {
      const { json = false } = command.opts<{ json?: boolean }>();
      const output = new Output(json);
      try {
        // commander passes the arguments, the options, and the command itself.
        process.exitCode = await spec.run(output, ...(args.slice(0, -1) as unknown as Args));
      } catch (error) {
        process.exitCode = output.error(error);
      }
    });
  spec.options?.(command);
  command.option('--json', 'print one JSON object for scripts');
}

export function exampleText(lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join('\n')}`;
}
