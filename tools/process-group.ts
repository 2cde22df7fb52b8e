import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** Killed processes are gone in milliseconds, unless a disk or a device holds them. */
const GONE_TIMEOUT_MS = 5_000;
const GONE_POLL_MS = 10;

/** Sends to all processes of a group; without effect where there are none. */
export function signalGroup(group: number, signal: NodeJS.Signals): void {
  isSent(group, signal);
}

/** Resolves when nothing of a group runs any more, but after 5 s in any case. */
export async function waitUntilGone(group: number): Promise<void> {
  const deadline = performance.now() + GONE_TIMEOUT_MS;
  while (isSent(group, 0) && (await isRunning(group)) && performance.now() < deadline) {
    await sleep(GONE_POLL_MS);
  }
}

function isSent(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-group, signal);
  } catch {
    return false;
  }
}

/** In a container often nobody reaps orphans, so that dead ones stay in the group for good. */
async function isRunning(group: number): Promise<boolean> {
  if (process.platform !== 'linux') return true;
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const stats = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '')),
  );
  return stats.some((stat) => {
    // pid (name, which may hold anything) state parent group …; see proc(5)
    const [state, , ofGroup] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return Number(ofGroup) === group && state !== 'Z' && state !== 'X';
  });
}
