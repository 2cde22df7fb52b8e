import { createHash } from 'node:crypto';
import type { Stats } from 'node:fs';
import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { forEachPiece } from '../engine/durable-files.ts';
import { WeldlineError } from '../engine/errors.ts';
import type { BlobPaths } from './hub-cache.ts';
import { blobName, type HubFile } from './hub-model.ts';

export interface DigestOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called after each piece, so that a caller can tell a long check from a hung one. */
  readonly onAlive?: (() => void) | undefined;
}

/** The digest of a file on disk, of the kind the hub gives for `file`. */
export async function blobDigest(
  path: string,
  file: HubFile,
  options: DigestOptions = {},
): Promise<string> {
  const hash = createHash(file.sha256 === undefined ? 'sha1' : 'sha256');
  if (file.sha256 === undefined) hash.update(`blob ${file.size}\0`);
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
 * reads file attributes only.
 */
export async function isBlobComplete(
  paths: BlobPaths,
  file: HubFile,
  options: DigestOptions = {},
): Promise<boolean> {
  const stats = await stat(paths.blob).catch(() => undefined);
  if (stats === undefined || !stats.isFile() || stats.size !== file.size) return false;
  if ((await readFile(paths.verified, 'utf8').catch(() => '')) === stampOf(stats)) return true;
  if ((await blobDigest(paths.blob, file, options)) !== blobName(file)) return false;
  await rememberVerified(paths);
  return true;
}

/** Notes that the digest of the blob as it is now was found right. */
export async function rememberVerified(paths: BlobPaths): Promise<void> {
  const stats = await stat(paths.blob);
  // Best effort: a read-only cache is checked again each time.
  await writeFile(paths.verified, stampOf(stats)).catch(() => undefined);
}

function stampOf(stats: Stats): string {
  return `${stats.size} ${stats.mtimeMs}\n`;
}

export function digestMismatch(name: string, file: HubFile, actual: string): WeldlineError {
  const kind = file.sha256 === undefined ? 'git sha1' : 'sha256';
  return new WeldlineError(
    'hub.digest-mismatch',
    `What was downloaded of ${name} is not what the commit pins: its ${kind} is ${actual} instead ` +
      `of ${blobName(file)}. It was removed; run again, and if it stays, suspect the mirror or proxy.`,
    { details: { expected: blobName(file), actual } },
  );
}
