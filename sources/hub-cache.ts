/**
 * The layout of the standard hub cache, shared with the official clients:
 *
 *   models--org--name/blobs/<digest>             content, named by its ETag
 *   models--org--name/snapshots/<commit>/<path>  relative links into blobs
 *   models--org--name/refs/<revision>            the commit a revision named last
 *
 * weldline's own files stand beside the blobs, under names the official clients leave alone. The
 * partial ends in `.incomplete`, so that `hf cache prune` finds what was given up.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, symlink, unlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { writing } from './disk-failure.ts';

export interface BlobPaths {
  readonly blob: string;
  /** The bytes received so far, at their final offsets. */
  readonly partial: string;
  /** Which byte ranges of the partial are on disk. */
  readonly journal: string;
  readonly lock: string;
  /** Says that the blob's digest was checked, for the size and time it has. */
  readonly verified: string;
}

export function modelDirectory(cacheDirectory: string, repo: string): string {
  return path.join(cacheDirectory, `models--${repo.replaceAll('/', '--')}`);
}

export function blobPaths(cacheDirectory: string, repo: string, blob: string): BlobPaths {
  const base = path.join(modelDirectory(cacheDirectory, repo), 'blobs', blob);
  return {
    blob: base,
    partial: `${base}.weldline.incomplete`,
    journal: `${base}.weldline.journal`,
    lock: `${base}.weldline.lock`,
    verified: `${base}.weldline.verified`,
  };
}

export function snapshotDirectory(cacheDirectory: string, repo: string, commit: string): string {
  return path.join(modelDirectory(cacheDirectory, repo), 'snapshots', commit);
}

/** Makes `snapshots/<commit>/<file>` a link to the blob, replacing whatever stands there. */
export async function linkSnapshotFile(
  snapshot: string,
  filePath: string,
  blob: string,
): Promise<void> {
  const link = path.join(snapshot, ...filePath.split('/'));
  const temporary = `${link}.${randomUUID()}`;
  await writing(link, async () => {
    await mkdir(path.dirname(link), { recursive: true });
    await symlink(path.relative(path.dirname(link), blob), temporary);
    await rename(temporary, link).catch(async (error: unknown) => {
      await unlink(temporary);
      throw error;
    });
  });
}

/** Records what `revision` names. To be called last: readers take a ref as "it is all there". */
export async function writeRef(
  cacheDirectory: string,
  repo: string,
  revision: string,
  commit: string,
): Promise<void> {
  const ref = path.join(modelDirectory(cacheDirectory, repo), 'refs', ...revision.split('/'));
  await writing(ref, async () => {
    const current = await readFile(ref, 'utf8').catch(() => undefined);
    if (current === commit) return;
    await mkdir(path.dirname(ref), { recursive: true });
    const temporary = `${ref}.${randomUUID()}`;
    await writeFile(temporary, commit);
    await rename(temporary, ref);
  });
}
