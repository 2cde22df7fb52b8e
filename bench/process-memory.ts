import { readdirSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';

/** Often enough to catch the last figures of a process that is about to end. */
const POLL_INTERVAL_MS = 20;

/** Peaks of resident memory as the kernel keeps them (VmHWM); zero where there is no /proc. */
export interface ProcessMemory {
  readonly peakBytes: number;
  /** Of the processes below it, by the name of the command: the highest of each name. */
  readonly childPeakBytes: Readonly<Record<string, number>>;
}

/**
 * Watches the memory of a process until it is told to stop.
 * @param children also look for what the process starts, which costs a walk through /proc
 */
export function watchMemory(pid: number | undefined, children: boolean): () => ProcessMemory {
  let peakBytes = 0;
  const childPeakBytes: Record<string, number> = {};
  const look = (): void => {
    if (pid === undefined) return;
    peakBytes = Math.max(peakBytes, peakOf(pid));
    for (const child of children ? descendants(pid) : []) {
      const name = commandOf(child);
      const peak = peakOf(child);
      if (name !== undefined && peak > 0) {
        childPeakBytes[name] = Math.max(childPeakBytes[name] ?? 0, peak);
      }
    }
  };
  const poll = setInterval(look, POLL_INTERVAL_MS);
  return () => {
    clearInterval(poll);
    return { peakBytes, childPeakBytes };
  };
}

/** @returns 0 of a process that has ended */
function peakOf(pid: number): number {
  const peakKiB = /^VmHWM:\s+(\d+) kB$/m.exec(readOf(pid, 'status'))?.[1];
  return Number(peakKiB ?? 0) * 1024;
}

function commandOf(pid: number): string | undefined {
  const [program] = readOf(pid, 'cmdline').split('\0');
  return program === undefined || program === '' ? undefined : basename(program);
}

function descendants(root: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    if (/^\d+$/.test(name)) parents.set(Number(name), parentOf(Number(name)));
  }
  const isBelow = (pid: number): boolean => {
    const parent = parents.get(pid) ?? 0;
    return parent === root || (parent > 1 && isBelow(parent));
  };
  return [...parents.keys()].filter(isBelow);
}

function parentOf(pid: number): number {
  return Number(statFields(readOf(pid, 'stat'))[1] ?? 0);
}

/** The fields of /proc/PID/stat after the name, which stands in parentheses and may hold spaces. */
export function statFields(stat: string): string[] {
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

function readOf(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
