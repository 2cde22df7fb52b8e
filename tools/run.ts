import { execa } from 'execa';
import { WeldlineError } from '../engine/errors.ts';

/** A program that was asked to stop gets this long to clean up before it is killed. */
const KILL_AFTER_MS = 10_000;
/** What an error shows of a program's output: enough for a traceback's end. */
const LAST_LINES_MAX = 15;
const LINE_LENGTH_MAX = 500;
/** Programs whose output is read print a page; the rest is only for `onLine`. */
const STDOUT_LENGTH_MAX = 1 << 20;

export interface RunOptions {
  /** A path, or a name to look up on the PATH of `env`. */
  file: string;
  args: readonly string[];
  /** The whole environment; see `childVariables`. */
  env: Readonly<Record<string, string>>;
  cwd?: string;
  signal?: AbortSignal | undefined;
  timeoutMs?: number;
  /** Every line of either stream as it comes. */
  onLine?: ((line: string) => void) | undefined;
}

/**
 * Runs a program to its end, without a shell and without standard input.
 *
 * @returns what it wrote to standard output, at most the first 1 MiB
 * @throws WeldlineError `tool.not-found` when it cannot be started, `tool.failed` (with the last
 *   lines of its output) when it exits with anything but 0 or takes too long; the reason of
 *   `signal` when that aborts it
 */
export async function run(options: RunOptions): Promise<string> {
  options.signal?.throwIfAborted();
  const subprocess = execa(options.file, options.args, {
    env: options.env,
    extendEnv: false,
    stdin: 'ignore',
    buffer: false,
    reject: false,
    forceKillAfterDelay: KILL_AFTER_MS,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs }),
  });
  let stdout = '';
  const lastLines: string[] = [];
  const read = async (from: 'stdout' | 'stderr') => {
    for await (const line of subprocess.iterable({ from })) {
      if (from === 'stdout' && stdout.length < STDOUT_LENGTH_MAX) stdout += `${line}\n`;
      if (line.trim() !== '') lastLines.push(line.slice(0, LINE_LENGTH_MAX));
      if (lastLines.length > LAST_LINES_MAX) lastLines.shift();
      options.onLine?.(line);
    }
  };
  // How the program ended is in `result`; a stream that breaks off with it says nothing more.
  const reading = Promise.allSettled([read('stdout'), read('stderr')]);
  const result = await subprocess;
  await reading;
  options.signal?.throwIfAborted();
  if (!result.failed) return stdout;

  const command = [options.file, ...options.args].join(' ').slice(0, LINE_LENGTH_MAX);
  if (result.exitCode === undefined && result.signal === undefined && !result.timedOut) {
    throw new WeldlineError(
      'tool.not-found',
      `${options.file} cannot be started (${result.code ?? result.originalMessage ?? 'unknown'}). ` +
        'Is it installed and executable?',
      { cause: result.cause },
    );
  }
  const how = result.timedOut
    ? `took longer than ${(options.timeoutMs ?? 0) / 1000} s`
    : result.signal === undefined
      ? `failed with exit code ${result.exitCode}`
      : `was ended by ${result.signal}`;
  const message = [`${command} ${how}.`, ...lastLines.map((line) => `  ${line}`)].join('\n');
  throw new WeldlineError('tool.failed', message);
}
