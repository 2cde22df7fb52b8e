import { systemErrorCode, WeldlineError } from './errors.ts';
import { toWeldlineError } from './to-weldline-error.ts';

/** What to do about a disk that cannot be written, where the general advice is not the best. */
export interface WriteRemedies {
  readonly full: string;
  readonly other: string;
}

const REMEDIES: WriteRemedies = {
  full: 'Free space (weldline plan says how much is needed) and run again; what is written stays.',
  other: 'Check the disk, its permissions, and that nothing else changes this place.',
};

/**
 * An error of the file system as an error for people. An error of weldline passes through, and what
 * is no error of the file system is a bug.
 * @param path the file or directory that was written
 */
export function toWriteError(error: unknown, path: string, remedies = REMEDIES): WeldlineError {
  const code = systemErrorCode(error);
  if (code === undefined) return toWeldlineError(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new WeldlineError(
      'disk.full',
      `The disk is full: ${path} cannot be written. ${remedies.full}`,
      { cause: error },
    );
  }
  const denied = code === 'EACCES' || code === 'EPERM' || code === 'EROFS';
  return new WeldlineError(
    denied ? 'output.not-writable' : 'disk.write-failed',
    `${path} ${denied ? 'may not' : 'cannot'} be written (${code}). ${remedies.other}`,
    { cause: error },
  );
}

/** As `toWriteError`, for reading. */
export function toReadError(error: unknown, path: string): WeldlineError {
  const code = systemErrorCode(error);
  if (code === undefined) return toWeldlineError(error);
  const absent = code === 'ENOENT' || code === 'ENOTDIR';
  return new WeldlineError(
    absent ? 'source.not-found' : 'disk.read-failed',
    absent ? `${path} does not exist.` : `${path} cannot be read (${code}).`,
    { cause: error },
  );
}

/** What only a disk says; writing to an open file says it without a path. */
const OF_A_DISK = ['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'];
const OF_WRITING = ['EACCES', 'EPERM', 'EMFILE', 'ENFILE'];
const OF_READING = ['ENOENT', 'ENOTDIR'];

/** Any error as one of weldline's: a file system can fail where nobody took care to say so. */
export function toKnownError(error: unknown): WeldlineError {
  const code = systemErrorCode(error);
  if (code === undefined) return toWeldlineError(error);
  const { path } = error as { readonly path?: unknown };
  if (OF_A_DISK.includes(code)) return toWriteError(error, String(path ?? "weldline's home"));
  if (typeof path !== 'string') return toWeldlineError(error);
  if (OF_WRITING.includes(code)) return toWriteError(error, path);
  return OF_READING.includes(code) ? toReadError(error, path) : toWeldlineError(error);
}
