import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { acquireBlobLock } from '../../sources/blob-lock.ts';

/** A busy machine may not come back to a lock for a second. */
const TIMING = { pollMs: 5, beatMs: 20, abandonedMs: 2_000 };
const PATIENT = { ...TIMING, abandonedMs: 60_000 };
let directory = '';
let lock = '';
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'weldline-lock-'));
  lock = path.join(directory, 'lock');
});
afterEach(() => rm(directory, { recursive: true }));

/** The pid of a process that has ended. */
function endedPid(): number {
  return spawnSync(process.execPath, ['-e', '']).pid;
}

async function acquireWithin(limitMs: number, timing = TIMING) {
  return acquireBlobLock(lock, { timing, signal: AbortSignal.timeout(limitMs) });
}

describe('acquireBlobLock', () => {
  it('lets one in at a time and removes its file', async () => {
    let inside = 0;
    let most = 0;
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        const release = await acquireBlobLock(lock, { timing: { ...TIMING, pollMs: 1 } });
        inside += 1;
        most = Math.max(most, inside);
        await new Promise((resolve) => setTimeout(resolve, 3));
        inside -= 1;
        await release();
      }),
    );
    expect(most).toBe(1);
    expect(await readdir(directory)).toEqual([]);
  });

  it('tells that it waits, and stops waiting on request', async () => {
    const release = await acquireBlobLock(lock);
    let waits = 0;
    const abort = new AbortController();
    const waiting = acquireBlobLock(lock, {
      timing: TIMING,
      signal: abort.signal,
      onWait: () => {
        waits += 1;
        if (waits > 1) abort.abort();
      },
    });
    await expect(waiting).rejects.toThrow();
    expect(waits).toBeGreaterThan(1);
    await release();
  });

  it('takes over at once from a process of this machine that is gone', async () => {
    await writeFile(lock, JSON.stringify({ host: hostname(), pid: endedPid(), id: 'x' }));
    const release = await acquireWithin(30_000, PATIENT);
    await release();
    expect(await readdir(directory)).toEqual([]);
  });

  it('takes over from an earlier process that had the pid of this one', async () => {
    await writeFile(lock, JSON.stringify({ host: hostname(), pid: process.pid, id: 'x' }));
    await (await acquireWithin(30_000, PATIENT))();
  });

  it.each([
    ['of another machine', JSON.stringify({ host: 'elsewhere', pid: 1, id: 'x' })],
    ['half written', '{"host":'],
  ])('takes over a lock %s only when it has not moved for long', async (_name, content) => {
    await writeFile(lock, content);
    await expect(acquireWithin(500)).rejects.toThrow();
    await (await acquireWithin(30_000))();
  });

  it('leaves a lock alone whose owner keeps touching it', async () => {
    await writeFile(lock, JSON.stringify({ host: 'elsewhere', pid: 1, id: 'x' }));
    const beat = setInterval(() => void utimes(lock, new Date(), new Date()), 20);
    await expect(acquireWithin(3_000)).rejects.toThrow();
    clearInterval(beat);
  });

  it('keeps its own lock alive', async () => {
    const release = await acquireBlobLock(lock, { timing: TIMING });
    await writeFile(lock, JSON.stringify({ host: 'elsewhere', pid: 1, id: 'mine' }));
    await expect(acquireWithin(3_000)).rejects.toThrow();
    await release();
  });
});
