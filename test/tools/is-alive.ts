import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Whether a process still runs; one that only waits for its parent to take note does not. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return process.platform !== 'linux';
  }
}

/** Those of the processes that still run after a moment for the news to spread. */
export async function survivors(pids: readonly number[]): Promise<number[]> {
  if (pids.length === 0 || pids.some((pid) => !(pid > 1))) throw new Error(`no pids: ${pids}`);
  const deadline = Date.now() + 30_000;
  let alive = pids.filter(isAlive);
  while (alive.length > 0 && Date.now() < deadline) {
    await sleep(20);
    alive = alive.filter(isAlive);
  }
  return alive;
}
