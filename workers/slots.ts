import { availableParallelism, totalmem } from 'node:os';
import type { Role } from '../activities/types.ts';
import type { Environment } from '../config/environment.ts';

/** What a process may take of its machine. */
export interface Machine {
  readonly processors: number;
  /** Of the machine, or of the container where that has a limit. */
  readonly memoryBytes: number;
}

/** Activities side by side, for each role, and why. */
export type Slots = Readonly<Record<Role, number>> & { readonly reason: string };

/** The rest is for the workflows' sandbox, for the system, and for what estimates miss. */
const SHARE = 0.8;

/** Threads of a merge for which nobody gives a number: at most 8, whatever the machine has. */
const THREADS_MAX = 8;

/** What a merge takes where nobody gives a budget, and something is streamed. */
const MERGE_BYTES = 400e6;

/** A plan in memory beside that: 35 MB of text for 400B parameters in experts, and its objects. */
const PLAN_BYTES = 100e6;

/** Planning, checking and publishing: headers and pieces of files, mostly waiting for disks and networks. */
const CONTROL_BYTES = 250e6;
const CONTROL_SLOTS_MAX = 8;

/** By the limits of the container, if there are any. */
export function thisMachine(): Machine {
  const total = totalmem();
  // 0, or more than any machine has, where there is no limit.
  const limit = process.constrainedMemory();
  return {
    processors: availableParallelism(),
    memoryBytes: limit > 0 ? Math.min(limit, total) : total,
  };
}

/**
 * How much of each kind of work a process does side by side: what its processors and its memory are
 * enough for, and at least one of each.
 */
export function chooseSlots(
  { processors, memoryBytes }: Machine,
  {
    threads,
    memoryBudgetBytes,
    worker,
  }: Pick<Environment, 'threads' | 'memoryBudgetBytes' | 'worker'>,
): Slots {
  const usable = SHARE * memoryBytes;
  const mergeThreads = threads ?? Math.min(THREADS_MAX, processors);
  const mergeBytes = (memoryBudgetBytes ?? MERGE_BYTES) + PLAN_BYTES;
  const byProcessors = atLeastOne(processors / mergeThreads);
  const byMemory = atLeastOne(usable / mergeBytes);
  const { slots } = worker;
  return {
    control: Math.min(CONTROL_SLOTS_MAX, atLeastOne(usable / CONTROL_BYTES)),
    merge: slots.merge ?? Math.min(byProcessors, byMemory),
    // Each runs a program that takes all processors or the GPU, and as much memory as its model.
    convert: slots.convert ?? 1,
    gpu: slots.gpu ?? 1,
    reason:
      slots.merge === undefined
        ? `${processors} processors for ${mergeThreads} threads each, ${gigabytes(memoryBytes)} of ` +
          `memory for ${gigabytes(mergeBytes)} each`
        : 'WELDLINE_MERGE_SLOTS',
  };
}

function atLeastOne(count: number): number {
  return Math.max(1, Math.floor(count));
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}
