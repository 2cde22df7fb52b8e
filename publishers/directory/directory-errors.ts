import { toWriteError } from '../../engine/disk-errors.ts';
import { systemErrorCode, WeldlineError } from '../../engine/errors.ts';

/** @param what what has the name: "made from other inputs" */
export function conflict(location: string, what: string): WeldlineError {
  return new WeldlineError(
    'publish.conflict',
    `${location} exists already, ${what}. A version is published once: raise "version" in the ` +
      'recipe, or remove what is there.',
  );
}

/** An error of the file system, as an error for people. */
export function toPublishError(error: unknown, path: string): WeldlineError {
  if (error instanceof WeldlineError) return error;
  const code = systemErrorCode(error) ?? '';
  if (['EACCES', 'EPERM', 'EROFS', 'ENOTDIR'].includes(code)) {
    return new WeldlineError(
      'publish.not-writable',
      `${path} cannot be written (${code}). Change its permissions or the target in the recipe.`,
      { cause: error },
    );
  }
  return toWriteError(error, path);
}
