import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import type { LeashReport } from './leash.ts';
import { LineSplitter } from './line-splitter.ts';
import { openOutputLog } from './output-log.ts';
import { signalGroup, waitUntilGone } from './process-group.ts';

/** A program that was asked to stop gets this long to clean up before it is killed. */
const KILL_AFTER_MS = 10_000;

export interface LeashedOptions {
  /** A path, or a name to look up on the PATH of `env`. */
  file: string;
  args: readonly string[];
  /** The whole environment; see `childVariables`. */
  env: Readonly<Record<string, string>>;
  cwd?: string | undefined;
  stdin: 'ignore' | 'pipe';
  /** Receives all output, appended; created with its directory. */
  logFile?: string | undefined;
  /** Lines are cut off at this many characters. */
  lineLengthMax: number;
  /** A line of output. The stream is read on when what this returns has resolved. */
  onLine: (line: string, from: 'stdout' | 'stderr') => void | Promise<void>;
  /** Something was printed, be it part of a line: a sign of life. */
  onOutput?: (() => void) | undefined;
}

export interface LeashedProcess {
  /** Sends to its standard input; without effect when that is closed or ignored. */
  write(text: string): void;
  closeInput(): void;
  /**
   * Ends it and all that it started: asked by SIGTERM, and killed after 10 s. Resolves when they
   * are gone.
   */
  stop(): Promise<void>;
  /** The same without asking. */
  kill(): Promise<void>;
  /** How it ended, once all its output is read; rejects with what `onLine` throws. */
  readonly ended: Promise<LeashReport>;
}

/**
 * Starts a program on a leash (see `leash.ts`): it and what it started never outlive weldline, nor
 * does what it started outlive it. What moves itself into another session escapes.
 */
export async function startLeashed(options: LeashedOptions): Promise<LeashedProcess> {
  const command = [options.file, ...options.args].join(' ');
  const log =
    options.logFile === undefined ? undefined : await openOutputLog(options.logFile, command);
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const leash = fileURLToPath(new URL(`./leash.${extension}`, import.meta.url));
  const subprocess = execa(process.execPath, [leash, options.file, ...options.args], {
    env: options.env,
    extendEnv: false,
    stdin: options.stdin,
    buffer: false,
    reject: false,
    ipc: true,
    detached: true,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  let report: LeashReport | undefined;
  subprocess.on('message', (message) => {
    report = message as unknown as LeashReport;
  });
  // Comes after the last message, which may be read after the exit.
  const disconnected = new Promise((resolve) => subprocess.once('disconnect', resolve));
  // Writing to a program that has just ended; how it ended says more.
  subprocess.stdin?.on('error', () => {});

  let isGone = false;
  const send = (signal: NodeJS.Signals): void => {
    // Its number may be another's by then.
    if (subprocess.pid !== undefined && !isGone) signalGroup(subprocess.pid, signal);
  };
  // The leash did this, unless it was killed itself.
  subprocess.once('exit', () => send('SIGKILL'));
  const read = async (from: 'stdout' | 'stderr'): Promise<void> => {
    const splitter = new LineSplitter(options.lineLengthMax);
    const deliver = async (lines: readonly string[]): Promise<void> => {
      for (const line of lines) {
        const taken = options.onLine(line, from);
        if (taken !== undefined) await taken;
      }
    };
    for await (const chunk of subprocess[from] as AsyncIterable<Buffer>) {
      options.onOutput?.();
      await log?.write(chunk);
      await deliver(splitter.push(chunk));
    }
    await deliver(splitter.end());
  };
  const end = async (): Promise<LeashReport> => {
    const reading = Promise.all([read('stdout'), read('stderr')]);
    reading.catch(() => send('SIGKILL'));
    try {
      const result = await subprocess;
      if (subprocess.pid !== undefined) {
        await disconnected;
        await waitUntilGone(subprocess.pid);
        isGone = true;
      }
      await reading;
      const { exitCode = null, signal = null, code } = result;
      return report ?? { exitCode, signal, ...(subprocess.pid ? {} : { startError: code ?? '' }) };
    } finally {
      await log?.close();
    }
  };
  const ended = end();
  const settled = ended.then(
    () => {},
    () => {},
  );
  return {
    write: (text) => void subprocess.stdin?.write(text),
    closeInput: () => void subprocess.stdin?.end(),
    async stop() {
      send('SIGTERM');
      const timer = setTimeout(send, KILL_AFTER_MS, 'SIGKILL');
      await settled;
      clearTimeout(timer);
    },
    async kill() {
      send('SIGKILL');
      await settled;
    },
    ended,
  };
}

/** A timer that may not be asked for; `onEnd` receives its length as `3 s`. */
export function afterMs(
  timeMs: number | undefined,
  onEnd: (time: string) => void,
): NodeJS.Timeout | undefined {
  return timeMs === undefined ? undefined : setTimeout(onEnd, timeMs, `${timeMs / 1000} s`);
}
