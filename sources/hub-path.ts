import { WeldlineError } from '../engine/errors.ts';

/** Longer paths cannot be made on common file systems below a cache directory. */
const PATH_CHARACTERS_MAX = 1024;

/** Whether a relative path from elsewhere stays inside the directory it is put into. */
export function isPlainPath(path: string): boolean {
  return (
    path.length > 0 &&
    path.length <= PATH_CHARACTERS_MAX &&
    path.split('/').every((step) => step !== '' && step !== '.' && step !== '..') &&
    // Control characters, and the separator of other systems.
    !/[\p{Cc}\\]/u.test(path)
  );
}

/**
 * Checks a file path that came from a hub, before it becomes a path on this disk.
 * @throws WeldlineError `hub.unsafe-path`
 */
export function checkHubPath(path: string): void {
  if (!isPlainPath(path)) {
    throw new WeldlineError(
      'hub.unsafe-path',
      `The hub lists a file named ${JSON.stringify(path.slice(0, 120))}, which could end up outside ` +
        'the cache. weldline does not download from such a repository.',
    );
  }
}

/** A checked path for use in a URL: every step percent-encoded. */
export function encodeHubPath(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/');
}
