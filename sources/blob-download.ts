import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { syncDirectory } from '../engine/durable-files.ts';
import { blobDigest, isBlobComplete, rememberVerified } from './blob-digest.ts';
import { BlobJournal, splitRanges } from './blob-journal.ts';
import { acquireBlobLock } from './blob-lock.ts';
import type { ByteRange } from './byte-range.ts';
import type { ConnectionLimit } from './connection-limit.ts';
import { writing } from './disk-failure.ts';
import type { BlobPaths } from './hub-cache.ts';
import { digestMismatch, type PinnedFile, pinnedDigest } from './pinned-file.ts';
import type { RangeReader } from './range-reader.ts';

/** Network chunks have some 16 to 64 KiB; one system call for each would cost more than copying. */
const WRITE_BYTES = 1024 * 1024;

export interface BlobDownload {
  readonly reader: RangeReader;
  readonly file: PinnedFile;
  readonly paths: BlobPaths;
  readonly limit: ConnectionLimit;
  readonly rangeBytes: number;
  readonly signal: AbortSignal;
  /** Bytes now on disk: received, or found there from an earlier attempt. */
  readonly onBytes: (bytes: number, received: boolean) => void;
  /** Something goes on that moves no bytes: waiting for another process, checking. */
  readonly onAlive: () => void;
}

/**
 * Brings one blob into the cache, going on where an earlier attempt stopped.
 * @throws WeldlineError `hub.*`, `source.*` (`*.digest-mismatch` removes what was downloaded),
 *   `disk.full`, `disk.write-failed`, or the abort reason
 */
export async function downloadBlob(download: BlobDownload): Promise<void> {
  const { file, paths, signal, onAlive } = download;
  const release = await writing(paths.lock, () =>
    acquireBlobLock(paths.lock, { signal, onWait: onAlive }),
  );
  try {
    // Another process may have finished it while this one waited.
    if (await isBlobComplete(paths, file, { signal, onAlive })) {
      download.onBytes(file.size, false);
      return;
    }
    await writing(paths.partial, () => fillPartial(download));
    await installPartial(download);
  } finally {
    await release();
  }
}

async function fillPartial(download: BlobDownload): Promise<void> {
  const { file, paths, rangeBytes } = download;
  // Not truncated: the bytes of the last attempt are what this is about.
  const handle = await open(paths.partial, constants.O_RDWR | constants.O_CREAT, 0o666);
  try {
    const journal = await BlobJournal.open(paths.journal, file.size, (await handle.stat()).size);
    try {
      const missing = journal.missing();
      const missingBytes = missing.reduce((sum, { length }) => sum + length, 0);
      download.onBytes(file.size - missingBytes, false);
      await fillRanges(download, splitRanges(missing, rangeBytes), handle, journal);
    } finally {
      await journal.close();
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Fetches all ranges; the first failure stops the others, and all have ended when this returns. */
async function fillRanges(
  download: BlobDownload,
  ranges: readonly ByteRange[],
  handle: FileHandle,
  journal: BlobJournal,
): Promise<void> {
  const stop = new AbortController();
  const onAbort = () => stop.abort(download.signal.reason);
  download.signal.addEventListener('abort', onAbort, { once: true });
  if (download.signal.aborted) onAbort();
  try {
    const work = ranges.map((range) =>
      download.limit(async () => {
        stop.signal.throwIfAborted();
        try {
          await fillRange(download, range, handle, stop.signal);
          await journal.record(range);
        } catch (error) {
          stop.abort(error);
          throw error;
        }
      }),
    );
    await Promise.allSettled(work);
    stop.signal.throwIfAborted();
  } finally {
    download.signal.removeEventListener('abort', onAbort);
  }
}

async function fillRange(
  download: BlobDownload,
  range: ByteRange,
  handle: FileHandle,
  signal: AbortSignal,
): Promise<void> {
  const buffer = Buffer.allocUnsafe(Math.min(WRITE_BYTES, range.length));
  let buffered = 0;
  let position = range.offset;
  const flush = async () => {
    await writeFully(handle, buffer.subarray(0, buffered), position);
    position += buffered;
    buffered = 0;
  };
  const sink = async (chunk: Uint8Array) => {
    for (let taken = 0; taken < chunk.byteLength; ) {
      const part = chunk.subarray(taken, taken + buffer.length - buffered);
      buffer.set(part, buffered);
      buffered += part.byteLength;
      taken += part.byteLength;
      if (buffered === buffer.length) await flush();
    }
    download.onBytes(chunk.byteLength, true);
  };
  await download.reader.stream(range.offset, range.length, sink, signal);
  await flush();
  // The journal may speak only of bytes that a power cut cannot take back.
  await handle.datasync();
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let written = 0; written < bytes.byteLength; ) {
    const result = await handle.write(
      bytes,
      written,
      bytes.byteLength - written,
      position + written,
    );
    written += result.bytesWritten;
  }
}

async function installPartial(download: BlobDownload): Promise<void> {
  const { file, paths, signal, onAlive } = download;
  const pinned = pinnedDigest(file);
  const actual =
    pinned === undefined ? undefined : await blobDigest(paths.partial, file, { signal, onAlive });
  if (actual !== undefined && actual !== pinned) {
    await rm(paths.journal, { force: true });
    await rm(paths.partial, { force: true });
    throw digestMismatch(download.reader.name, file, actual);
  }
  await writing(paths.blob, async () => {
    await rename(paths.partial, paths.blob);
    await syncDirectory(path.dirname(paths.blob));
    await rm(paths.journal, { force: true });
  });
  await rememberVerified(paths);
}
