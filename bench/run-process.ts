import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { childVariables } from '../config/environment.ts';
import type { Measurement } from './measurement.ts';
import { statFields, watchMemory } from './process-memory.ts';

/** Linux reports processor time to programs in hundredths, whatever its own clock. */
const TICKS_PER_SECOND = 100;

export interface ProcessRun extends Measurement {
  readonly stdout: string;
}

export interface RunOptions {
  readonly signal: AbortSignal;
  readonly variables?: Readonly<Record<string, string>>;
  /** Look at the memory of the processes it starts, too. */
  readonly watchChildren?: boolean;
}

/**
 * Runs a program to its end and measures it. Programs must run one after the other: the kernel
 * adds up the processor time of all children.
 * @throws Error with its last lines if it fails; the signal's reason if it is aborted
 */
export async function runProcess(
  program: string,
  args: readonly string[],
  { signal, variables = {}, watchChildren = false }: RunOptions,
): Promise<ProcessRun> {
  const before = childrenTime();
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
  const stopWatching = watchMemory(child.pid, watchChildren);
  const { code, failure } = await endOf(child);
  const seconds = (performance.now() - startedAt) / 1000;
  const memory = stopWatching();
  signal.throwIfAborted();
  if (failure !== undefined) throw failure;
  if (code !== 0) {
    throw new Error(`${program} ${args.join(' ')} ended with ${code}:\n${stderr || stdout}`);
  }
  const after = childrenTime();
  return {
    seconds,
    userSeconds: after.user - before.user,
    systemSeconds: after.system - before.system,
    peakMemoryBytes: memory.peakBytes,
    ...(watchChildren ? { childMemoryBytes: memory.childPeakBytes } : {}),
    stdout,
  };
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

/** Processor time of the children of this process that have ended, with what they waited for. */
function childrenTime(): { user: number; system: number } {
  try {
    const fields = statFields(readFileSync('/proc/self/stat', 'utf8'));
    return {
      user: Number(fields[13]) / TICKS_PER_SECOND,
      system: Number(fields[14]) / TICKS_PER_SECOND,
    };
  } catch {
    return { user: 0, system: 0 };
  }
}
