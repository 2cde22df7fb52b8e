import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { toWriteError } from '../engine/disk-errors.ts';

/** A program that prints without end must not fill the disk with it. */
const LOGGED_BYTES_MAX = 64 << 20;

/** Where the output of one program goes. */
export interface OutputLog {
  /** Resolves once written, so that a program is no faster than the disk. */
  write(chunk: Buffer): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens a log to append to, and creates its directory. Both streams of a program, and several
 * programs, may append to one. A disk that fills up ends the log, not the program.
 *
 * @throws WeldlineError `disk.full`, `disk.write-failed` or `output.not-writable`
 */
export async function openOutputLog(path: string, command: string): Promise<OutputLog> {
  const file = await openToAppend(path);
  let leftBytes = LOGGED_BYTES_MAX;
  const append = async (text: Buffer | string): Promise<void> => {
    try {
      await file.appendFile(text);
    } catch {
      leftBytes = 0;
    }
  };
  await append(`\n--- ${new Date().toISOString()} ${command}\n`);
  return {
    async write(chunk) {
      if (leftBytes <= 0) return;
      leftBytes -= chunk.length;
      await append(chunk);
      if (leftBytes <= 0) await append('\n--- it printed more than is kept\n');
    },
    close: () => file.close(),
  };
}

async function openToAppend(path: string): Promise<FileHandle> {
  try {
    await mkdir(dirname(path), { recursive: true });
    return await open(path, 'a');
  } catch (error) {
    throw toWriteError(error, path);
  }
}
