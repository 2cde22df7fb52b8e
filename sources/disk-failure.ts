import { systemErrorCode, WeldlineError } from '../engine/errors.ts';

/** The error for a failed write, making or renaming of `path`; other errors pass as they are. */
export function diskFailure(error: unknown, path: string): unknown {
  const code = systemErrorCode(error);
  if (error instanceof WeldlineError || code === undefined) return error;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new WeldlineError(
      'disk.full',
      `The disk or quota is full while writing ${path}. What was downloaded is kept: free some ` +
        'space, or set HF_HUB_CACHE to a larger disk, and run again.',
      { cause: error },
    );
  }
  return new WeldlineError(
    'disk.write-failed',
    `${path} cannot be written (${code}). Check that this user may write there, or set ` +
      'HF_HUB_CACHE to another directory.',
    { cause: error },
  );
}

/** Runs file operations on `path`, with their failures told in weldline's terms. */
export async function writing<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw diskFailure(error, path);
  }
}
