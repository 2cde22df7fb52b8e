import { randomBytes } from 'node:crypto';
import { link, readFile, rm, writeFile } from 'node:fs/promises';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { identityOf, isRunning, type ProcessIdentity } from './process-identity.ts';
import { waitUntil } from './wait-until.ts';

/** How soon a waiter sees that the lock is free; starting a server takes ten times as long. */
const POLL_INTERVAL_MS = 50;

interface Owner extends ProcessIdentity {
  /** Tells two times of holding by the same process apart. */
  nonce: string;
}

export interface ProcessLockOptions {
  timeoutMs: number;
  signal?: AbortSignal | undefined;
}

/**
 * Runs `body` while no other process (or other caller in this one) holds the lock `path`. The lock
 * of a process that died is taken over. `path` must be on a local file system with hard links.
 *
 * @throws WeldlineError `temporal.start-failed` when a live process keeps it for `timeoutMs`
 */
export async function withProcessLock<T>(
  path: string,
  options: ProcessLockOptions,
  body: () => Promise<T>,
): Promise<T> {
  const nonce = await acquire(path, options);
  try {
    return await body();
  } finally {
    if ((await ownerOf(path))?.nonce === nonce) await rm(path, { force: true });
  }
}

async function acquire(path: string, options: ProcessLockOptions): Promise<string> {
  let nonce: string | undefined;
  let owner: Owner | undefined;
  const acquired = async () => {
    nonce = await tryAcquire(path);
    if (nonce !== undefined) return true;
    owner = await ownerOf(path);
    if (owner !== undefined && !isRunning(owner)) await breakLock(path, owner, options);
    return false;
  };
  const wait = { timeoutMs: options.timeoutMs, pollMs: POLL_INTERVAL_MS, signal: options.signal };
  if ((await waitUntil(acquired, wait)) && nonce !== undefined) return nonce;
  throw new WeldlineError(
    'temporal.start-failed',
    `Process ${owner?.pid ?? 'unknown'} has kept the lock ${path} for ` +
      `${options.timeoutMs / 1000} s. If that process hangs, end it and try again.`,
  );
}

/** Creates the lock whole or not at all: no reader ever sees one without its owner. */
async function tryAcquire(path: string): Promise<string | undefined> {
  const nonce = randomBytes(8).toString('hex');
  const draft = `${path}.${nonce}.draft`;
  await writeFile(draft, JSON.stringify({ ...identityOf(process.pid), nonce }));
  try {
    await link(draft, path);
    return nonce;
  } catch (error) {
    if (systemErrorCode(error) === 'EEXIST') return undefined;
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

/**
 * Removes the lock of a dead owner. Two processes may find it dead at once, and the slower one must
 * not remove what the faster one has acquired since: a second lock, named after the dead owner's
 * nonce, lets one at a time look again and remove.
 */
async function breakLock(path: string, dead: Owner, options: ProcessLockOptions): Promise<void> {
  await withProcessLock(`${path}.${dead.nonce}`, options, async () => {
    if ((await ownerOf(path))?.nonce === dead.nonce) await rm(path, { force: true });
  });
}

async function ownerOf(path: string): Promise<Owner | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { pid, start, nonce } = JSON.parse(text) as Partial<Owner>;
    if (
      typeof pid === 'number' &&
      typeof start === 'string' &&
      /^[0-9a-f]{16}$/.test(nonce ?? '')
    ) {
      return { pid, start, nonce: nonce ?? '' };
    }
  } catch {
    // Falls through: a power cut can leave an empty file, and nobody owns that.
  }
  return { pid: 0, start: '', nonce: 'unreadable' };
}
