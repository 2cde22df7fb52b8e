/**
 * Space that merges under way will still take. Free space alone says nothing of them: two merges
 * that begin at once would both see it, and both run out of it.
 *
 * A lease is a small file in the home, so all workers that share it see the same. One that is taken
 * wrongly, or lost, leads to a full disk at worst, which merges stop at safely.
 */
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { z } from 'zod';
import { writeFileDurably } from '../engine/durable-files.ts';
import { WeldlineError } from '../engine/errors.ts';
import { bytesOnDisk } from '../engine/merge/shard-file.ts';
import { checkDiskSpace, type SpaceNeed } from '../engine/plan/disk-space.ts';
import { acquireBlobLock } from '../sources/blob-lock.ts';
import type { MergeWorkspace } from './workspace.ts';

const RENEWAL_MS = 30_000;

/** Longer than two attempts are apart, and than clocks of hosts differ. */
const STALE_MS = 10 * 60_000;

/** Nobody comes back to one that is as old as this. */
const FORGOTTEN_MS = 24 * 3_600_000;

/** It is held for some small files only. */
const LOCK_TIMING = { pollMs: 50, beatMs: 10_000, abandonedMs: 60_000 };

const leaseSchema = z.object({
  /** Milliseconds since the epoch; of two leases the earlier one comes first. */
  since: z.number(),
  /** What the merge takes in all, whatever of it is there already. */
  bytes: z.number().nonnegative(),
  /** Where it grows, from the home. */
  files: z.string(),
});

type Lease = z.infer<typeof leaseSchema> & { readonly name: string; readonly isLive: boolean };

export interface MergeSpace {
  readonly planDigest: string;
  readonly workspace: MergeWorkspace;
  readonly bytes: number;
}

/**
 * Does work of a merge that has space on the disk, beside the merges that began before it.
 * @throws WeldlineError `disk.full`; `disk.reserved` where it will fit once those are done
 */
export async function withDiskLease<T>(
  home: string,
  space: MergeSpace,
  work: () => Promise<T>,
): Promise<T> {
  const renew = await takeLease(home, space);
  let renewal = Promise.resolve();
  const timer = setInterval(() => {
    renewal = renew().catch(() => undefined);
  }, RENEWAL_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    // One under way would bring a lease back that is ended next.
    await renewal;
  }
}

/** A merge is done, or given up. */
export async function endDiskLease(home: string, planDigest: string): Promise<void> {
  await rm(leasePath(home, planDigest), { force: true });
}

/**
 * What merges under way still need.
 * @param planDigest of a merge that has a lease: only those before it count
 */
export async function reservedSpace(
  home: string,
  planDigest?: string,
): Promise<readonly SpaceNeed[]> {
  const leases = await liveLeases(home);
  const own = leases.find(({ name }) => name === planDigest);
  const others = leases.filter((lease) => lease !== own && (!own || lease.since < own.since));
  const needs: SpaceNeed[] = [];
  for (const { bytes, files } of others) {
    const written = await bytesOnDisk({ files: join(home, files), journals: '' });
    needs.push({ directory: home, bytes: Math.max(0, bytes - written), purpose: 'another merge' });
  }
  return needs;
}

/**
 * A merge that has to wait keeps its lease, and with it its turn.
 * @returns renews it
 */
async function takeLease(
  home: string,
  { planDigest, workspace, bytes }: MergeSpace,
): Promise<() => Promise<void>> {
  const path = leasePath(home, planDigest);
  await mkdir(leasesDirectory(home), { recursive: true });
  const unlock = await acquireBlobLock(join(leasesDirectory(home), 'lock'), {
    timing: LOCK_TIMING,
  });
  try {
    const leases = await liveLeases(home);
    const own = leases.find(({ name }) => name === planDigest);
    // After all that are there, also where the clock of this host is behind.
    const since = own?.since ?? Math.max(Date.now(), ...leases.map((lease) => lease.since + 1));
    const text = JSON.stringify({ since, bytes, files: relative(home, workspace.staging.files) });
    const write = (): Promise<void> => writeFileDurably(path, text);
    await write();
    const left = Math.max(0, bytes - (await bytesOnDisk(workspace.staging)));
    const need = { directory: home, bytes: left, purpose: 'the merged checkpoint' };
    await checkDiskSpace([need], await reservedSpace(home, planDigest));
    return write;
  } catch (error) {
    // Others must not wait for a merge that waits for a person.
    if (error instanceof WeldlineError && error.code === 'disk.full')
      await rm(path, { force: true });
    throw error;
  } finally {
    await unlock();
  }
}

async function liveLeases(home: string): Promise<readonly Lease[]> {
  const directory = leasesDirectory(home);
  const names = await readdir(directory).catch(() => []);
  const leases = await Promise.all(
    names
      .filter((name) => name.endsWith('.json'))
      .map((name) => readLease(join(directory, name), name)),
  );
  return leases.filter((lease) => lease?.isLive === true) as Lease[];
}

/** @returns undefined for one that is gone by now, or damaged */
async function readLease(path: string, fileName: string): Promise<Lease | undefined> {
  try {
    const age = Date.now() - (await stat(path)).mtimeMs;
    if (age > FORGOTTEN_MS) await rm(path, { force: true });
    const lease = leaseSchema.parse(JSON.parse(await readFile(path, 'utf8')));
    return { ...lease, name: fileName.replace(/\.json$/, ''), isLive: age < STALE_MS };
  } catch {
    return undefined;
  }
}

function leasesDirectory(home: string): string {
  return join(home, 'leases');
}

function leasePath(home: string, planDigest: string): string {
  return join(leasesDirectory(home), `${planDigest}.json`);
}
