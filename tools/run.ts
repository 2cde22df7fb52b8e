import { afterMs, startLeashed } from './leashed-process.ts';
import { LastLines, programFailure, type Stopped } from './program-failure.ts';

/** Programs whose output is read print a page; the rest is only for `onLine`. */
const STDOUT_LENGTH_MAX = 1 << 20;

export interface RunOptions {
  /** A path, or a name to look up on the PATH of `env`. */
  file: string;
  args: readonly string[];
  /** The whole environment; see `childVariables`. */
  env: Readonly<Record<string, string>>;
  cwd?: string | undefined;
  signal?: AbortSignal | undefined;
  timeoutMs?: number | undefined;
  /** How long it may print nothing, on either stream. */
  stallTimeoutMs?: number | undefined;
  /** Receives all that it prints, appended; created with its directory. */
  logFile?: string | undefined;
  /** Every line of either stream as it comes. Progress bars end theirs with a carriage return. */
  onLine?: ((line: string, from: 'stdout' | 'stderr') => void) | undefined;
}

/**
 * Runs a program to its end, without a shell and without standard input. It and what it started
 * are gone when this returns or throws, and when weldline dies; what has to be stopped is asked
 * first and killed 10 s later.
 *
 * @returns what it wrote to standard output, line by line, at most the first 1 MiB
 * @throws WeldlineError with the last lines of its output: `tool.not-found` when it cannot be
 *   started, `tool.stalled` when it printed nothing for too long, `tool.killed` when memory ran out
 *   or may have (SIGKILL), `disk.full` when it says so, `tool.failed` when it exits with anything
 *   else but 0 or takes too long; the reason of `signal` when that aborts it
 */
export async function run(options: RunOptions): Promise<string> {
  const { signal, timeoutMs, stallTimeoutMs, onLine } = options;
  signal?.throwIfAborted();
  let stdout = '';
  const lastLines = new LastLines();
  let stallTimer: NodeJS.Timeout | undefined;
  const program = await startLeashed({
    ...options,
    stdin: 'ignore',
    lineLengthMax: STDOUT_LENGTH_MAX,
    onLine: (line, from) => {
      if (from === 'stdout' && stdout.length < STDOUT_LENGTH_MAX) stdout += `${line}\n`;
      lastLines.add(line);
      onLine?.(line, from);
    },
    onOutput: () => stallTimer?.refresh(),
  });

  let stopped: Stopped | undefined;
  const stop = (why?: Stopped): void => {
    stopped ??= why;
    void program.stop();
  };
  const onAbort = (): void => stop();
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted) onAbort();
  const timer = afterMs(timeoutMs, (time) => {
    stop({ code: 'tool.failed', how: `took longer than ${time}` });
  });
  stallTimer = afterMs(stallTimeoutMs, (time) => {
    stop({ code: 'tool.stalled', how: `printed nothing for ${time} and was stopped` });
  });
  const ending = await program.ended.finally(() => {
    clearTimeout(timer);
    clearTimeout(stallTimer);
    signal?.removeEventListener('abort', onAbort);
  });

  signal?.throwIfAborted();
  if (ending.exitCode === 0 && stopped === undefined) return stdout;
  const command = [options.file, ...options.args].join(' ');
  throw programFailure(command, options.file, ending, lastLines, stopped);
}
