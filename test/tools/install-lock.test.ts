import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { withInstallLock } from '../../tools/install-lock.ts';

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-lock-'));
  path = join(directory, 'tool.lock');
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

describe('withInstallLock', () => {
  it('lets one work at a time, and tells the others once that they wait', async () => {
    let waits = 0;
    let working = 0;
    const work = async () => {
      expect(++working).toBe(1);
      expect(await readFile(path, 'utf8')).toBe(`${hostname()} ${process.pid}\n`);
      await new Promise((resolve) => setTimeout(resolve, 300));
      return working--;
    };
    const onWait = () => waits++;
    const results = await Promise.all([1, 2, 3].map(() => withInstallLock({ path, onWait }, work)));
    expect(results).toEqual([1, 1, 1]);
    expect(waits).toBe(2);
    expect(await readdir(directory)).toEqual([]);
  });

  it('is free again after work that fails', async () => {
    const failure = new Error('no');
    await expect(withInstallLock({ path }, () => Promise.reject(failure))).rejects.toBe(failure);
    expect(await readdir(directory)).toEqual([]);
  });

  it('takes over what a dead process of this machine holds', async () => {
    // Ids end at 2^22 on Linux.
    await writeFile(path, `${hostname()} 999999999\n`);
    const onWait = () => expect.unreachable();
    expect(await withInstallLock({ path, onWait }, async () => 'done')).toBe('done');
  });

  it('takes over what another machine has not refreshed, and waits for what it has', async () => {
    await writeFile(path, 'another-machine 1\n');
    const signal = AbortSignal.timeout(500);
    const reason = await withInstallLock({ path, signal }, async () => 'done').catch((e) => e);
    expect(reason).toBe(signal.reason);
    expect(await readFile(path, 'utf8')).toBe('another-machine 1\n');
    const longAgo = new Date(Date.now() - 60_000);
    await utimes(path, longAgo, longAgo);
    expect(await withInstallLock({ path }, async () => 'done')).toBe('done');
    expect(await readdir(directory)).toEqual([]);
  });
});
