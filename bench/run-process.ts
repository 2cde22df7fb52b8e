import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { childVariables } from '../config/environment.ts';

/** Often enough to catch the last figures of a process that is about to end. */
const POLL_INTERVAL_MS = 50;

/** Linux reports processor time to programs in hundredths, whatever its own clock. */
const TICKS_PER_SECOND = 100;

/** What the kernel keeps of a process, as last seen; zeros where there is no /proc. */
export interface Usage {
  /** The high-water mark of resident memory. */
  readonly peakMemoryBytes: number;
  /** User and system time of all threads: hardly changed by what else the machine does. */
  readonly cpuSeconds: number;
}

export interface ProcessRun extends Usage {
  readonly seconds: number;
  readonly stdout: string;
}

/**
 * Runs a program to its end and watches the time it takes and its resident memory.
 * @throws Error with its last lines if it fails; the signal's reason if it is aborted
 */
export async function runProcess(
  program: string,
  args: readonly string[],
  options: { readonly signal: AbortSignal; readonly variables?: Record<string, string> },
): Promise<ProcessRun> {
  const { signal, variables = {} } = options;
  const startedAt = performance.now();
  const child = spawn(program, args, {
    env: childVariables(variables),
    stdio: ['ignore', 'pipe', 'pipe'],
    signal,
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (piece: Buffer) => {
    stdout += piece.toString();
  });
  child.stderr.on('data', (piece: Buffer) => {
    stderr = (stderr + piece.toString()).slice(-4000);
  });
  let usage: Usage = { peakMemoryBytes: 0, cpuSeconds: 0 };
  const poll = setInterval(() => {
    usage = usageOf(child.pid) ?? usage;
  }, POLL_INTERVAL_MS);
  try {
    const { code, failure } = await endOf(child);
    signal.throwIfAborted();
    if (failure !== undefined) throw failure;
    if (code !== 0) {
      throw new Error(`${program} ${args.join(' ')} ended with ${code}:\n${stderr || stdout}`);
    }
  } finally {
    clearInterval(poll);
  }
  return { seconds: (performance.now() - startedAt) / 1000, stdout, ...usage };
}

/** Waits until the process is gone, aborted or not: what it writes must not come after a clean-up. */
function endOf(child: ChildProcess): Promise<{ code: number | null; failure?: Error }> {
  return new Promise((resolve) => {
    let failure: Error | undefined;
    child.on('error', (error) => {
      failure = error;
      if (child.pid === undefined) resolve({ code: null, failure: error });
    });
    child.on('close', (code) => resolve({ code, ...(failure === undefined ? {} : { failure }) }));
  });
}

/** @returns undefined once the process has ended */
function usageOf(pid: number | undefined): Usage | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const peakKiB = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
    // The name, in parentheses, may hold spaces; user and system time are 12th and 13th after it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (peakKiB === undefined) return undefined;
    const ticks = Number(fields[11]) + Number(fields[12]);
    return { peakMemoryBytes: Number(peakKiB) * 1024, cpuSeconds: ticks / TICKS_PER_SECOND };
  } catch {
    return undefined;
  }
}
