import { mkdir, realpath, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { WeldlineError } from '../engine/errors.ts';
import { isBlobComplete } from './blob-digest.ts';
import { downloadBlob } from './blob-download.ts';
import { type ConnectionLimit, connectionLimit } from './connection-limit.ts';
import { writing } from './disk-failure.ts';
import {
  type BlobPaths,
  blobPaths,
  linkSnapshotFile,
  snapshotDirectory,
  writeRef,
} from './hub-cache.ts';
import type { HubConnection } from './hub-connection.ts';
import { hubFileReader } from './hub-file-reader.ts';
import { blobName, type HubFile, type HubModel } from './hub-model.ts';

/**
 * One connection to a storage host carries some 50 to 100 MB/s; eight fill a 5 Gbit/s line, and are
 * as many as the official client opens.
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
  /** Path in the repository of the file that moved last. */
  readonly file: string;
}

export interface FetchModelOptions {
  readonly model: HubModel;
  /** The files to fetch, of `model.files`. */
  readonly files: readonly HubFile[];
  /** The hub cache: see `Environment.hub` in config/environment.ts. */
  readonly cacheDirectory: string;
  readonly signal?: AbortSignal | undefined;
  /** Called for every chunk and while checking digests: throttle it. */
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
  readonly connectionsMax?: number | undefined;
  readonly rangeBytes?: number | undefined;
}

export interface FetchedModel {
  /** The snapshot directory: the files under their names, as links. */
  readonly directory: string;
  readonly bytesTotal: number;
  readonly bytesReceived: number;
}

/** Files with the same content are one blob. */
interface Blob {
  readonly file: HubFile;
  readonly paths: BlobPaths;
}

/**
 * Brings files of one commit into the standard hub cache: by range, in parallel, going on at the
 * range reached by an earlier attempt that was killed, each file checked against its digest before
 * it gets its name. Files that are there already, from this or the official client, are checked once
 * and not fetched.
 *
 * Returns when every file is in place and `refs/<revision>` names the commit. Safe to repeat and to
 * run twice at once.
 * @throws WeldlineError `hub.*`, `disk.full`, `disk.write-failed`, or the abort reason of `signal`
 */
export async function fetchModel(
  connection: HubConnection,
  options: FetchModelOptions,
): Promise<FetchedModel> {
  const { model, files, signal } = options;
  const cacheDirectory = path.resolve(options.cacheDirectory);
  const blobs = distinctBlobs(cacheDirectory, model.repo, files);
  const progress = progressOf(blobs, options.onProgress);
  const absent = await absentBlobs(cacheDirectory, model, blobs, progress, signal);
  await downloadAll(connection, options, absent, progress);
  // Not before: readers take a snapshot that exists for a complete one.
  const snapshot = snapshotDirectory(cacheDirectory, model.repo, model.commit);
  await writing(snapshot, () => mkdir(snapshot, { recursive: true }));
  for (const file of files) {
    const { blob } = blobPaths(cacheDirectory, model.repo, blobName(file));
    await linkIfNeeded(snapshot, file, blob);
  }
  if (model.revision !== model.commit) {
    await writeRef(cacheDirectory, model.repo, model.revision, model.commit);
  }
  return { directory: snapshot, bytesTotal: progress.total, bytesReceived: progress.received() };
}

function distinctBlobs(cacheDirectory: string, repo: string, files: readonly HubFile[]): Blob[] {
  const byName = new Map(files.map((file) => [blobName(file), file]));
  return [...byName].map(([name, file]) => ({
    file,
    paths: blobPaths(cacheDirectory, repo, name),
  }));
}

interface Progress {
  readonly total: number;
  readonly received: () => number;
  readonly add: (file: HubFile, bytes: number, received: boolean) => void;
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
  cacheDirectory: string,
  model: HubModel,
  blobs: readonly Blob[],
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
  if (absent.length === 0) return absent;
  const directory = path.dirname(absent[0]!.paths.blob);
  await writing(directory, () => mkdir(directory, { recursive: true }));
  const { bavail, blocks, bsize } = await statfs(directory);
  // File systems that do not know their size say 0 blocks.
  if (blocks > 0 && bavail * bsize < bytesNeeded) {
    throw new WeldlineError(
      'disk.full',
      `${model.repo} needs ${bytesNeeded} more bytes in ${cacheDirectory}, where ` +
        `${bavail * bsize} are free. Free some space, or set HF_HUB_CACHE to a larger disk.`,
      { details: { bytesNeeded, bytesFree: bavail * bsize } },
    );
  }
  return absent;
}

async function downloadAll(
  connection: HubConnection,
  options: FetchModelOptions,
  blobs: readonly Blob[],
  progress: Progress,
): Promise<void> {
  const connectionsMax = options.connectionsMax ?? CONNECTIONS_MAX;
  const limit: ConnectionLimit = connectionLimit(connectionsMax);
  // No more files in flight than connections, so that a crash leaves few partials.
  const fileLimit = connectionLimit(connectionsMax);
  const stop = new AbortController();
  const onAbort = () => stop.abort(options.signal?.reason);
  options.signal?.addEventListener('abort', onAbort, { once: true });
  if (options.signal?.aborted) onAbort();
  try {
    const work = blobs.map(({ file, paths }) =>
      fileLimit(async () => {
        if (stop.signal.aborted) return;
        const reader = hubFileReader(connection, options.model, file);
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

async function linkIfNeeded(snapshot: string, file: HubFile, blob: string): Promise<void> {
  const link = path.join(snapshot, ...file.path.split('/'));
  const target = await realpath(link).catch(() => undefined);
  if (target !== undefined && target === (await realpath(blob))) return;
  await linkSnapshotFile(snapshot, file.path, blob);
}
