/** Runs `weldline` as a user does: a process of its own, with its own environment. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { testTemporalCli } from '../tools/test-temporal-cli.ts';
import { waitFor } from './wait-for.ts';

const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));

export interface CommandResult {
  /** Null when a signal ended it. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

export interface CommandOptions {
  readonly variables?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** In place of `node cli/main.ts`. */
  readonly program?: readonly [string, ...string[]];
}

export class RunningCommand {
  readonly child: ChildProcess;
  readonly ended: Promise<CommandResult>;
  stdout = '';
  stderr = '';
  #hasEnded = false;

  constructor(args: readonly string[], variables: NodeJS.ProcessEnv, options: CommandOptions) {
    const startedAt = performance.now();
    const [program, ...before] = options.program ?? [process.execPath, MAIN];
    this.child = spawn(program, [...before, ...args], {
      cwd: options.cwd,
      env: variables,
      // A group of its own, as a shell gives each job: the keyboard's Ctrl-C reaches the group.
      detached: true,
    });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.ended = once(this.child, 'close').then(([status]) => {
      this.#hasEnded = true;
      const { stdout, stderr } = this;
      return { status: status as number | null, stdout, stderr, ms: performance.now() - startedAt };
    });
  }

  /** Waits until the command has written something that matches, to either stream. */
  async hasWritten(pattern: RegExp): Promise<void> {
    await waitFor(`${pattern} in the output`, async () => {
      if (pattern.test(this.stdout) || pattern.test(this.stderr)) return true;
      if (!this.#hasEnded) return undefined;
      throw new Error(`ended without ${pattern}:\n${this.stdout}\n${this.stderr}`);
    });
  }

  signal(name: NodeJS.Signals): void {
    process.kill(-(this.child.pid ?? 0), name);
  }
}

/**
 * The environment of a user with nothing set up but what `variables` say. The cache is for threads that
 * load TypeScript, which no user does: see compile-threads.ts.
 */
export async function userVariables(
  variables: Readonly<Record<string, string>> = {},
): Promise<NodeJS.ProcessEnv> {
  const { path } = await testTemporalCli();
  const { PATH, HOME, NODE_COMPILE_CACHE } = process.env;
  return { PATH, HOME, NODE_COMPILE_CACHE, WELDLINE_TEMPORAL_CLI: path, ...variables };
}

export async function startCommand(
  args: readonly string[],
  options: CommandOptions = {},
): Promise<RunningCommand> {
  return new RunningCommand(args, await userVariables(options.variables), options);
}

export async function runCommand(
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  return (await startCommand(args, options)).ended;
}
