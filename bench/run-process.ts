import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { childVariables } from '../config/environment.ts';

/** Often enough to catch the high-water mark of a process that is about to end. */
const MEMORY_POLL_INTERVAL_MS = 50;

export interface ProcessRun {
  readonly seconds: number;
  readonly stdout: string;
  /** The high-water mark that the kernel kept, as last seen; 0 where there is no /proc. */
  readonly peakMemoryBytes: number;
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
  let peakMemoryBytes = 0;
  const poll = setInterval(() => {
    peakMemoryBytes = Math.max(peakMemoryBytes, highWaterMark(child.pid));
  }, MEMORY_POLL_INTERVAL_MS);
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
  return { seconds: (performance.now() - startedAt) / 1000, stdout, peakMemoryBytes };
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

function highWaterMark(pid: number | undefined): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}
