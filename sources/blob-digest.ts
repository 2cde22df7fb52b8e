import { createHash } from 'node:crypto';
import type { Stats } from 'node:fs';
import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { forEachPiece } from '../engine/durable-files.ts';
import type { BlobPaths } from './hub-cache.ts';
import { type PinnedFile, pinnedDigest } from './pinned-file.ts';

export interface DigestOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called after each piece, so that a caller can tell a long check from a hung one. */
  readonly onAlive?: (() => void) | undefined;
}

/** The digest of a file on disk, of the kind that `file` is pinned by. */
export async function blobDigest(
  path: string,
  file: PinnedFile,
  options: DigestOptions = {},
): Promise<string> {
  const isGit = file.sha256 === undefined && file.gitSha1 !== undefined;
  const hash = createHash(isGit ? 'sha1' : 'sha256');
  if (isGit) hash.update(`blob ${file.size}\0`);
  const handle = await open(path, 'r');
  try {
    const visit = (piece: Uint8Array): void => {
      hash.update(piece);
      options.onAlive?.();
    };
    await forEachPiece(
      handle,
      { begin: 0, end: (await handle.stat()).size },
      visit,
      options.signal,
    );
    return hash.digest('hex');
  } finally {
    await handle.close();
  }
}

/**
 * Whether the cache holds the right bytes of `file`, whoever put them there. The digest is computed
 * once per blob and remembered by size and time of change, so that a second run over a 140 GB model
 * reads file attributes only. Without a digest to compare, only what was noted counts.
 */
export async function isBlobComplete(
  paths: BlobPaths,
  file: PinnedFile,
  options: DigestOptions = {},
): Promise<boolean> {
  const stats = await stat(paths.blob).catch(() => undefined);
  if (stats === undefined || !stats.isFile() || stats.size !== file.size) return false;
  if ((await readFile(paths.verified, 'utf8').catch(() => '')) === stampOf(stats)) return true;
  const pinned = pinnedDigest(file);
  if (pinned === undefined || (await blobDigest(paths.blob, file, options)) !== pinned)
    return false;
  await rememberVerified(paths);
  return true;
}

/** Notes that the blob as it is now was found right. */
export async function rememberVerified(paths: BlobPaths): Promise<void> {
  const stats = await stat(paths.blob);
  // Best effort: a read-only cache is checked again each time.
  await writeFile(paths.verified, stampOf(stats)).catch(() => undefined);
}

function stampOf(stats: Stats): string {
  return `${stats.size} ${stats.mtimeMs}\n`;
}
