import { mkdir, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { WeldlineError } from '../engine/errors.ts';
import { isBlobComplete } from './blob-digest.ts';
import { downloadBlob } from './blob-download.ts';
import { connectionLimit } from './connection-limit.ts';
import { writing } from './disk-failure.ts';
import type { BlobPaths } from './hub-cache.ts';
import type { PinnedFile } from './pinned-file.ts';
import type { RangeReader } from './range-reader.ts';

/**
 * One connection to a storage host carries some 50 to 100 MB/s; eight fill a 5 Gbit/s line, and are
 * as many as the hub's official client opens.
 */
const CONNECTIONS_MAX = 8;

/**
 * What a crash can cost each connection, and what a request is worth: at 50 MB/s a range takes a
 * third of a second, some ten times as long as asking for it.
 */
const RANGE_BYTES = 16 * 1024 * 1024;

/** The unit of `st_blocks`, whatever the file system's own. */
const BLOCK_BYTES = 512;

export interface FetchProgress {
  /** Bytes of the chosen files that are on disk, found or received. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Bytes received over the network by this call. */
  readonly bytesReceived: number;
  /** Path, relative to the model or repository, of the file that moved last. */
  readonly file: string;
}

export interface FetchOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called for every chunk and while checking digests: throttle it. */
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
  readonly connectionsMax?: number | undefined;
  readonly rangeBytes?: number | undefined;
}

/** A file to fetch, where to, and how. */
export interface Blob {
  readonly file: PinnedFile;
  readonly paths: BlobPaths;
  readonly reader: RangeReader;
}

export interface BlobSet {
  /** What is fetched, for messages. */
  readonly name: string;
  /** What it is fetched into, and the variable that names another place. */
  readonly place: { readonly directory: string; readonly variable: string };
  readonly blobs: readonly Blob[];
}

export interface FetchedBytes {
  readonly bytesTotal: number;
  readonly bytesReceived: number;
}

/**
 * Brings files to this machine: by range, in parallel, going on at the range reached by an earlier
 * attempt that was killed, each file checked against its digest, where one is known, before it gets
 * its name. Files that are there already are checked once and not fetched. Safe to repeat and to run
 * twice at once.
 * @throws WeldlineError `hub.*`, `source.*`, `disk.full`, `disk.write-failed`, or the abort reason of
 *   `signal`
 */
export async function fetchBlobs(set: BlobSet, options: FetchOptions): Promise<FetchedBytes> {
  const progress = progressOf(set.blobs, options.onProgress);
  const absent = await absentBlobs(set, progress, options.signal);
  await downloadAll(absent, options, progress);
  return { bytesTotal: progress.total, bytesReceived: progress.received() };
}

interface Progress {
  readonly total: number;
  readonly received: () => number;
  readonly add: (file: PinnedFile, bytes: number, received: boolean) => void;
}

function progressOf(
  blobs: readonly Blob[],
  report: ((progress: FetchProgress) => void) | undefined,
): Progress {
  const total = blobs.reduce((sum, { file }) => sum + file.size, 0);
  let bytesDone = 0;
  let bytesReceived = 0;
  return {
    total,
    received: () => bytesReceived,
    add(file, bytes, received) {
      bytesDone += bytes;
      if (received) bytesReceived += bytes;
      report?.({ bytesDone, bytesTotal: total, bytesReceived, file: file.path });
    },
  };
}

/** The blobs that must be fetched; makes sure they can fit before the first byte moves. */
async function absentBlobs(
  { name, place, blobs }: BlobSet,
  progress: Progress,
  signal: AbortSignal | undefined,
): Promise<Blob[]> {
  const absent: Blob[] = [];
  let bytesNeeded = 0;
  for (const blob of blobs) {
    const { file, paths } = blob;
    const onAlive = () => progress.add(file, 0, false);
    if (await isBlobComplete(paths, file, { signal, onAlive })) {
      progress.add(file, file.size, false);
    } else {
      absent.push(blob);
      bytesNeeded += Math.max(0, file.size - (await allocatedBytes(paths.partial)));
    }
  }
  for (const directory of new Set(absent.flatMap(({ paths }) => directoriesOf(paths)))) {
    await writing(directory, () => mkdir(directory, { recursive: true }));
  }
  if (absent.length === 0) return absent;
  const { bavail, blocks, bsize } = await statfs(path.dirname(absent[0]!.paths.blob));
  // File systems that do not know their size say 0 blocks.
  if (blocks > 0 && bavail * bsize < bytesNeeded) {
    throw new WeldlineError(
      'disk.full',
      `${name} needs ${bytesNeeded} more bytes in ${place.directory}, where ` +
        `${bavail * bsize} are free. Free some space, or set ${place.variable} to a larger disk.`,
      { details: { bytesNeeded, bytesFree: bavail * bsize } },
    );
  }
  return absent;
}

function directoriesOf({ blob, partial }: BlobPaths): string[] {
  return [path.dirname(blob), path.dirname(partial)];
}

async function downloadAll(
  blobs: readonly Blob[],
  options: FetchOptions,
  progress: Progress,
): Promise<void> {
  const connectionsMax = options.connectionsMax ?? CONNECTIONS_MAX;
  const limit = connectionLimit(connectionsMax);
  // No more files in flight than connections, so that a crash leaves few partials.
  const fileLimit = connectionLimit(connectionsMax);
  const stop = new AbortController();
  const onAbort = () => stop.abort(options.signal?.reason);
  options.signal?.addEventListener('abort', onAbort, { once: true });
  if (options.signal?.aborted) onAbort();
  try {
    const work = blobs.map(({ file, paths, reader }) =>
      fileLimit(async () => {
        if (stop.signal.aborted) return;
        const onBytes = (bytes: number, received: boolean) => progress.add(file, bytes, received);
        await downloadBlob({
          reader,
          file,
          paths,
          limit,
          rangeBytes: options.rangeBytes ?? RANGE_BYTES,
          signal: stop.signal,
          onBytes,
          onAlive: () => onBytes(0, false),
        }).catch((error: unknown) => stop.abort(error));
      }),
    );
    // All have let go of their files and locks when this returns, whatever happened.
    await Promise.all(work);
    stop.signal.throwIfAborted();
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
  }
}

/** What of a partial takes up space already: it is sparse where ranges are missing. */
async function allocatedBytes(partial: string): Promise<number> {
  const stats = await stat(partial).catch(() => undefined);
  return stats === undefined ? 0 : stats.blocks * BLOCK_BYTES;
}
