import { readdir, readFile } from 'node:fs/promises';

/** Processes that descend from this one and whose command line holds `text`. */
export async function descendantsWith(text: string): Promise<readonly number[]> {
  const parents = new Map<number, number>();
  const matching: number[] = [];
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = await readFile(`/proc/${entry}/stat`, 'utf8');
      // The name before it may hold spaces and parentheses.
      const [, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      parents.set(Number(entry), Number(parent));
      const command = await readFile(`/proc/${entry}/cmdline`, 'utf8');
      if (command.includes(text)) matching.push(Number(entry));
    } catch {
      // It ended meanwhile.
    }
  }
  const isBelow = (pid: number | undefined): boolean =>
    pid !== undefined && (pid === process.pid || isBelow(parents.get(pid)));
  return matching.filter((pid) => pid !== process.pid && isBelow(parents.get(pid)));
}

/** Whether a process runs; one that has ended and was not waited for by its parent does not. */
export async function isRunning(pid: number): Promise<boolean> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
  } catch {
    return false;
  }
}
