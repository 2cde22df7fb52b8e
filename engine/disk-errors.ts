import { systemErrorCode, WeldlineError } from './errors.ts';

/**
 * An error of the file system as an error for people. An error of weldline passes through.
 * @param path the file or directory that was written
 */
export function toWriteError(error: unknown, path: string): WeldlineError {
  if (error instanceof WeldlineError) return error;
  const code = systemErrorCode(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new WeldlineError(
      'disk.full',
      `The disk is full: ${path} cannot be written. Free space (weldline plan says how much is ` +
        'needed) and resume; what is written stays.',
      { cause: error },
    );
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new WeldlineError(
      'output.not-writable',
      `${path} may not be written (${code}). Change its permissions or choose another place.`,
      { cause: error },
    );
  }
  if (code === undefined) return bug(error);
  return new WeldlineError(
    'disk.write-failed',
    `${path} cannot be written (${code}). Check the disk and that nothing else changes this place.`,
    { cause: error },
  );
}

/** Not an error of the file system at all: trying again would not help. */
function bug(error: unknown): WeldlineError {
  const message = error instanceof Error ? error.message : String(error);
  return new WeldlineError('internal.bug', `This is a bug in weldline: ${message}`, {
    cause: error,
  });
}

/** As `toWriteError`, for reading. */
export function toReadError(error: unknown, path: string): WeldlineError {
  if (error instanceof WeldlineError) return error;
  const code = systemErrorCode(error);
  if (code === undefined) return bug(error);
  return new WeldlineError(
    code === 'ENOENT' || code === 'ENOTDIR' ? 'source.not-found' : 'disk.read-failed',
    code === 'ENOENT' || code === 'ENOTDIR'
      ? `${path} does not exist.`
      : `${path} cannot be read (${code}).`,
    { cause: error },
  );
}
