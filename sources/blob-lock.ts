/**
 * Keeps two processes from downloading the same blob at once. It saves traffic and nothing depends
 * on it: two downloads of a blob write the same bytes to the same places, and only verified bytes
 * are renamed. So a lock that is taken over wrongly costs bandwidth, not correctness.
 */
import { randomUUID } from 'node:crypto';
import { open, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { systemErrorCode } from '../engine/errors.ts';
import { pause } from './pause.ts';

export interface LockTiming {
  readonly pollMs: number;
  readonly beatMs: number;
  /** A lock whose time has not moved for this long, by the waiter's own clock, is abandoned. */
  readonly abandonedMs: number;
}

const TIMING: LockTiming = { pollMs: 500, beatMs: 10_000, abandonedMs: 60_000 };

export interface BlobLockOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called while waiting for another process. */
  readonly onWait?: (() => void) | undefined;
  readonly timing?: LockTiming | undefined;
}

/**
 * The ids of all locks this process ever made: after a restart in a container, another process has
 * its pid. A released one stays in: a waiter may have read its file just before it was removed, and
 * would take the next one's lock away if it then found the id gone.
 */
const madeHere = new Set<string>();

/** Waits for the lock at `path` and returns the function that releases it. */
export async function acquireBlobLock(
  path: string,
  options: BlobLockOptions = {},
): Promise<() => Promise<void>> {
  const { timing = TIMING } = options;
  const id = randomUUID();
  const mine = JSON.stringify({ host: hostname(), pid: process.pid, id });
  // Before the file is there: a waiter of this process may read it as soon as it is.
  madeHere.add(id);
  await createWhenFree(path, mine, options);
  const beat = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => undefined);
  }, timing.beatMs);
  beat.unref();
  return async () => {
    clearInterval(beat);
    const current = await readFile(path, 'utf8').catch(() => undefined);
    if (current === mine) await rm(path, { force: true });
  };
}

async function createWhenFree(
  path: string,
  content: string,
  { signal, onWait, timing = TIMING }: BlobLockOptions,
): Promise<void> {
  const seen = { mtimeMs: Number.NaN, sinceMs: 0 };
  for (;;) {
    signal?.throwIfAborted();
    if (await create(path, content)) return;
    if (await isAbandoned(path, seen, timing)) {
      // Renamed rather than removed: of several waiters only one gets it, the others find it gone.
      const aside = `${path}.${randomUUID()}`;
      const taken = await rename(path, aside).then(
        () => true,
        () => false,
      );
      if (taken) await rm(aside, { force: true });
      continue;
    }
    onWait?.();
    await pause(timing.pollMs, signal);
  }
}

async function create(path: string, content: string): Promise<boolean> {
  try {
    const handle = await open(path, 'wx');
    try {
      await handle.writeFile(content);
    } finally {
      await handle.close();
    }
    return true;
  } catch (error) {
    if (systemErrorCode(error) === 'EEXIST') return false;
    throw error;
  }
}

async function isAbandoned(
  path: string,
  seen: { mtimeMs: number; sinceMs: number },
  timing: LockTiming,
): Promise<boolean> {
  const stats = await stat(path).catch(() => undefined);
  if (stats === undefined) return false;
  if (ownerIsGone(await readFile(path, 'utf8').catch(() => ''))) return true;
  const nowMs = performance.now();
  if (stats.mtimeMs !== seen.mtimeMs) {
    seen.mtimeMs = stats.mtimeMs;
    seen.sinceMs = nowMs;
  }
  return nowMs - seen.sinceMs >= timing.abandonedMs;
}

/** True only if it is certain; locks of other hosts and half-written ones are left to time. */
function ownerIsGone(content: string): boolean {
  let owner: { host?: unknown; pid?: unknown; id?: unknown };
  try {
    owner = JSON.parse(content);
  } catch {
    return false;
  }
  if (owner.host !== hostname() || typeof owner.pid !== 'number') return false;
  if (owner.pid === process.pid) return !madeHere.has(String(owner.id));
  try {
    process.kill(owner.pid, 0);
    return false;
  } catch (error) {
    return systemErrorCode(error) === 'ESRCH';
  }
}
