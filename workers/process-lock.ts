import { randomBytes } from 'node:crypto';
import { readlink, rm, symlink } from 'node:fs/promises';
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
 * of a process that died is taken over. `path` must be on a local file system with symbolic links.
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

/**
 * The lock is a symbolic link to nowhere, whose text names its owner: it is there whole or not at all, so that
 * no reader ever sees one without its owner, and file systems keep a text this short beside its name, so
 * that it needs no room on a disk that is full.
 */
async function tryAcquire(path: string): Promise<string | undefined> {
  const nonce = randomBytes(8).toString('hex');
  const own = identityOf(process.pid);
  try {
    await symlink(`${process.pid} ${nonce} ${own?.start ?? ''}`, path);
    return nonce;
  } catch (error) {
    if (systemErrorCode(error) === 'EEXIST') return undefined;
    throw error;
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
    text = await readlink(path);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    // What is no link is no lock of anybody's.
    if (systemErrorCode(error) !== 'EINVAL') throw error;
    text = '';
  }
  const [, pid, nonce, start] = /^(\d+) ([0-9a-f]{16}) (.*)$/.exec(text) ?? [];
  if (nonce === undefined) return { pid: 0, start: '', nonce: 'unreadable' };
  return { pid: Number(pid), nonce, start: start ?? '' };
}
