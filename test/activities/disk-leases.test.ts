import { mkdir, readdir, statfs, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { endDiskLease, reservedSpace, withDiskLease } from '../../activities/disk-leases.ts';
import { mergeWorkspace } from '../../activities/workspace.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

const MB = 1024 * 1024;
const LONG_AGO_MS = 11 * 60_000;

let home: string;
/** More than half of what is free: two of them do not fit. */
let most: number;

beforeEach(async () => {
  home = await temporaryDirectory();
  const { bavail, bsize } = await statfs(home);
  most = Math.floor(0.6 * bavail * bsize);
});

function spaceOf(planDigest: string, bytes: number) {
  return { planDigest, bytes, workspace: mergeWorkspace(home, planDigest) };
}

/** A merge that goes on until it is told to end. */
async function running(planDigest: string, bytes: number): Promise<() => Promise<unknown>> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const merge = withDiskLease(home, spaceOf(planDigest, bytes), () => {
    begun.resolve();
    return promise;
  });
  await Promise.race([begun.promise, merge]);
  return () => {
    resolve();
    return merge;
  };
}

async function begins(planDigest: string, bytes: number): Promise<string> {
  return withDiskLease(home, spaceOf(planDigest, bytes), async () => 'begun').catch(
    (error: { code: string }) => error.code,
  );
}

describe('the space of merges under way', () => {
  it('is not given to another, until they are done', async () => {
    const end = await running('first', most);
    expect(await begins('second', most)).toBe('disk.reserved');
    // Another shard of it, on another worker.
    expect(await begins('first', most)).toBe('begun');
    expect(await begins('small', MB)).toBe('disk.reserved');
    await end();
    // Its other shards are still to come.
    expect(await begins('second', most)).toBe('disk.reserved');
    await endDiskLease(home, 'first');
    expect(await begins('second', most)).toBe('begun');
    expect(await begins('small', MB)).toBe('begun');
  });

  it('goes to one of two that begin at the same time', async () => {
    const all = await Promise.all(['a', 'b', 'c', 'd'].map((name) => begins(name, most)));
    expect(all.filter((result) => result === 'begun')).toHaveLength(1);
    expect(all.filter((result) => result === 'disk.reserved')).toHaveLength(3);
  });

  it('is what they have not written yet', async () => {
    const { workspace } = spaceOf('first', 0);
    await mkdir(workspace.staging.files, { recursive: true });
    const end = await running('first', 10 * MB);
    expect(await reservedSpace(home)).toMatchObject([{ bytes: 10 * MB }]);
    await writeFile(join(workspace.staging.files, 'shard.partial'), Buffer.alloc(4 * MB, 1));
    expect(await reservedSpace(home)).toMatchObject([{ bytes: 6 * MB }]);
    await writeFile(join(workspace.staging.files, 'other.partial'), Buffer.alloc(8 * MB, 1));
    expect(await reservedSpace(home)).toMatchObject([{ bytes: 0 }]);
    await end();
  });

  it('is free again when nobody has come back to it for minutes', async () => {
    await begins('first', most);
    const longAgo = new Date(Date.now() - LONG_AGO_MS);
    await utimes(join(home, 'leases', 'first.json'), longAgo, longAgo);
    expect(await reservedSpace(home)).toEqual([]);
    expect(await begins('second', most)).toBe('begun');
    // It comes back after all, and is the later one now.
    expect(await begins('first', most)).toBe('disk.reserved');
  });

  it('is not kept for a merge that waits for a person', async () => {
    expect(await begins('huge', 1e18)).toBe('disk.full');
    expect(await readdir(join(home, 'leases'))).toEqual([]);
  });

  it('counts though the clock of the other host is ahead, and not if its lease is damaged', async () => {
    await mkdir(join(home, 'leases'));
    const lease = { since: Date.now() + 3_600_000, bytes: most, files: 'merges/ahead/files' };
    const path = join(home, 'leases', 'ahead.json');
    await writeFile(path, JSON.stringify(lease));
    expect(await begins('second', most)).toBe('disk.reserved');
    await writeFile(path, '{"since":');
    expect(await begins('second', most)).toBe('begun');
  });
});
