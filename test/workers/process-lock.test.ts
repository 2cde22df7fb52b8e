import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, statfs, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { identityOf } from '../../workers/process-identity.ts';
import { withProcessLock } from '../../workers/process-lock.ts';

let directory: string;
let lock: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-lock-'));
  lock = join(directory, 'lock');
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

async function count(times: number, end = 'live'): Promise<void> {
  const script = fileURLToPath(new URL('./lock-user.ts', import.meta.url));
  const child = spawn(process.execPath, [script, directory, String(times), end], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  await once(child, 'exit');
}

describe('withProcessLock', () => {
  it('lets one process at a time in, and takes over from those that are killed inside', async () => {
    await writeFile(join(directory, 'counter'), '0');
    await Promise.all([count(8), count(8), count(3, 'die'), count(3, 'die'), count(8)]);
    expect(await readFile(join(directory, 'counter'), 'utf8')).toBe('30');
    await withProcessLock(lock, { timeoutMs: 1000 }, async () => undefined);
    expect(await readdir(directory)).toEqual(['counter']);
  });

  it('lets one caller of this process at a time in', async () => {
    let inside = 0;
    const visit = () =>
      withProcessLock(lock, { timeoutMs: 10_000 }, async () => {
        inside += 1;
        expect(inside).toBe(1);
        await new Promise((settle) => setTimeout(settle, 5));
        inside -= 1;
      });
    await Promise.all([visit(), visit(), visit()]);
  });

  it('is free again after an error', async () => {
    const failing = withProcessLock(lock, { timeoutMs: 1000 }, () =>
      Promise.reject(new Error('x')),
    );
    await expect(failing).rejects.toThrow('x');
    expect(await withProcessLock(lock, { timeoutMs: 1000 }, async () => 'in')).toBe('in');
  });

  it('is not kept by a process that was given the id of a dead owner', async () => {
    const nonce = '0123456789abcdef';
    await symlink(`${process.pid} ${nonce} long ago`, lock);
    expect(await withProcessLock(lock, { timeoutMs: 1000 }, async () => 'in')).toBe('in');
  });

  it('takes over what is no lock', async () => {
    for (const text of ['', 'anything']) {
      await writeFile(lock, text);
      expect(await withProcessLock(lock, { timeoutMs: 1000 }, async () => 'in')).toBe('in');
    }
    await symlink('elsewhere', lock);
    expect(await withProcessLock(lock, { timeoutMs: 1000 }, async () => 'in')).toBe('in');
    expect(await readdir(directory)).toEqual([]);
  });

  it('needs no room on a disk that is full', async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'weldline-test', directory]);
    try {
      const { bavail, bsize } = await statfs(directory);
      await writeFile(join(directory, 'filler'), Buffer.alloc(bavail * bsize));
      await expect(writeFile(join(directory, 'more'), 'x')).rejects.toThrow('ENOSPC');
      expect(await withProcessLock(lock, { timeoutMs: 1000 }, async () => 'in')).toBe('in');
    } finally {
      execFileSync('umount', [directory]);
    }
  });

  it('gives up in time on a live owner, and names it', async () => {
    const nonce = '0123456789abcdef';
    await symlink(`${process.pid} ${nonce} ${identityOf(process.pid)?.start}`, lock);
    await expect(
      withProcessLock(lock, { timeoutMs: 200 }, async () => undefined),
    ).rejects.toMatchObject({
      code: 'temporal.start-failed',
      message: expect.stringContaining(`Process ${process.pid} has kept the lock ${lock}`),
    });
    const reason = new Error('enough');
    const waiting = withProcessLock(
      lock,
      { timeoutMs: 60_000, signal: AbortSignal.timeout(100) },
      async () => undefined,
    );
    await expect(waiting).rejects.toMatchObject({ name: 'TimeoutError' });
    await expect(
      withProcessLock(lock, { timeoutMs: 1, signal: AbortSignal.abort(reason) }, async () => 0),
    ).rejects.toBe(reason);
  });
});
