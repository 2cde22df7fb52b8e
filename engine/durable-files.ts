import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, type FileHandle, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { toReadError, toWriteError } from './disk-errors.ts';

/** Read in pieces of this size where a whole file passes through: one allocation, few calls. */
const PIECE_BYTES = 4 * 1024 * 1024;

/**
 * When this thread began, in microseconds: on storage that several hosts share, each of them has a
 * process of the same id (in containers often all), and after a restart so has the same host.
 */
const BEGUN = Math.round(performance.timeOrigin * 1000).toString(36);

let temporaryFiles = 0;

/** A name beside `path` that no other writer of the file has, on this host or another. */
export function temporaryBeside(path: string): string {
  const writer = `${process.pid}-${BEGUN}-${temporaryFiles++}`;
  return join(dirname(path), `.${basename(path)}.${writer}.partial`);
}

/** Whether it is a name that `temporaryBeside` gives, of whatever writer. */
export function isTemporary(name: string): boolean {
  return /^\..+\.\d+-[0-9a-z]+-\d+\.partial$/.test(name);
}

/** Makes a directory's entries (a rename, a new file) survive a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Writes a small file so that it is either whole or not there: temporary name, sync, rename,
 * directory sync. Replaces an existing one.
 *
 * @throws WeldlineError `disk.full`, `output.not-writable`, `disk.write-failed`
 */
export async function writeFileDurably(path: string, data: string | Uint8Array): Promise<void> {
  const temporary = temporaryBeside(path);
  try {
    const handle = await open(temporary, 'w');
    try {
      await handle.writeFile(data);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true });
    throw toWriteError(error, path);
  }
}

/**
 * Copies a file with its mode, durably: shares its blocks where the file system can, else in the
 * kernel. The bytes of the copy are its own.
 */
export async function copyFileDurably(source: string, target: string): Promise<void> {
  await copyFile(source, target, constants.COPYFILE_FICLONE);
  // Of a file that may not be written, too: syncing takes no more than reading.
  const handle = await open(target, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Reads an open file from start to end.
 * @param visit gets each piece; the buffer is reused, so it must not be kept
 */
export async function forEachPiece(
  handle: FileHandle,
  range: { readonly begin: number; readonly end: number },
  visit: (piece: Uint8Array, offset: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  const buffer = new Uint8Array(Math.max(1, Math.min(PIECE_BYTES, range.end - range.begin)));
  let position = range.begin;
  while (position < range.end) {
    signal?.throwIfAborted();
    const wanted = Math.min(buffer.length, range.end - position);
    const { bytesRead } = await handle.read(buffer, 0, wanted, position);
    if (bytesRead === 0) return;
    visit(buffer.subarray(0, bytesRead), position);
    position += bytesRead;
  }
}

export interface FileDigest {
  readonly size: number;
  /** 64 hexadecimal digits. */
  readonly sha256: string;
}

export interface DigestOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: ((count: number) => void) | undefined;
}

/** Size and SHA-256 of an open file, whatever its name is by now. */
export async function digestHandle(
  handle: FileHandle,
  options: DigestOptions = {},
): Promise<FileDigest> {
  const hash = createHash('sha256');
  let size = 0;
  const range = { begin: 0, end: (await handle.stat()).size };
  const visit = (piece: Uint8Array): void => {
    hash.update(piece);
    size += piece.length;
    options.onBytes?.(piece.length);
  };
  await forEachPiece(handle, range, visit, options.signal);
  return { size, sha256: hash.digest('hex') };
}

/**
 * Size and SHA-256 of a file, read in pieces.
 * @throws WeldlineError `source.not-found`, `disk.read-failed`
 */
export async function digestFile(path: string, options: DigestOptions = {}): Promise<FileDigest> {
  try {
    const handle = await open(path, 'r');
    try {
      return await digestHandle(handle, options);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (options.signal?.aborted === true) throw error;
    throw toReadError(error, path);
  }
}
