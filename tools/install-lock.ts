import { randomBytes } from 'node:crypto';
import { link, mkdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemErrorCode } from '../engine/errors.ts';

const REFRESH_INTERVAL_MS = 2000;
/** A holder that is alive refreshes its lock far more often, also where the machine is busy. */
const STALE_AFTER_MS = 30_000;
const POLL_INTERVAL_MS = 250;

export interface InstallLockOptions {
  /** The lock is a file of this name. */
  path: string;
  signal?: AbortSignal | undefined;
  /** Called once, if another process holds it. */
  onWait?: (() => void) | undefined;
}

/**
 * Runs `work` while no other process does so under the same path. A lock whose holder died is taken
 * over: at once on the holder's machine, elsewhere when it was not refreshed. It spares work and
 * traffic; what is done under it must be sound without it.
 */
export async function withInstallLock<T>(
  { path, signal, onWait }: InstallLockOptions,
  work: () => Promise<T>,
): Promise<T> {
  await mkdir(dirname(path), { recursive: true });
  for (let waits = 0; !(await take(path)); waits++) {
    signal?.throwIfAborted();
    if (waits === 0) onWait?.();
    await sleep(POLL_INTERVAL_MS);
  }
  const refresh = setInterval(() => {
    const now = new Date();
    // Whoever took it for stale goes on; nothing is lost but time.
    utimes(path, now, now).catch(() => undefined);
  }, REFRESH_INTERVAL_MS);
  try {
    return await work();
  } finally {
    clearInterval(refresh);
    await rm(path, { force: true });
  }
}

async function take(path: string): Promise<boolean> {
  try {
    await writeFile(path, `${hostname()} ${process.pid}\n`, { flag: 'wx' });
    return true;
  } catch (error) {
    if (systemErrorCode(error) !== 'EEXIST') throw error;
  }
  const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Date.now() }));
  const holder = await readFile(path, 'utf8').catch(() => '');
  if (Date.now() - mtimeMs < STALE_AFTER_MS && !isDead(holder)) return false;
  // Renamed, since of two that find it stale only one can.
  const stale = `${path}-stale-${randomBytes(4).toString('hex')}`;
  try {
    await rename(path, stale);
  } catch {
    return false;
  }
  const moved = await readFile(stale, 'utf8').catch(() => holder);
  // The other one was so fast that this is its new lock.
  if (moved !== holder) await link(stale, path).catch(() => undefined);
  await rm(stale, { force: true });
  return moved === holder ? take(path) : false;
}

/** True only where it is certain: a process of this machine that no longer runs. */
function isDead(holder: string): boolean {
  const [, host, pid] = /^(\S+) (\d+)\n$/.exec(holder) ?? [];
  if (host !== hostname()) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return systemErrorCode(error) === 'ESRCH';
  }
}
