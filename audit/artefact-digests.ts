import { connectionLimit } from '../sources/connection-limit.ts';
import { digestOfFile } from '../sources/open-input.ts';
import type { OpenedArtefact } from './open-artefact.ts';

/** One hashes while others wait for the network or the disk. */
const FILES_AT_ONCE = 4;

/** A file as it was found. */
export interface FoundFile {
  readonly size: number;
  readonly sha256: string;
}

export interface ReadOptions {
  readonly signal: AbortSignal;
  readonly onBytes?: ((count: number) => void) | undefined;
}

/**
 * Size and SHA-256 of every file of an artefact, by path. All of it is read, from where it is, and
 * nothing is stored.
 * @throws WeldlineError what reading throws
 */
export async function artefactDigests(
  { files }: OpenedArtefact,
  options: ReadOptions,
): Promise<ReadonlyMap<string, FoundFile>> {
  const limit = connectionLimit(FILES_AT_ONCE);
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const work = [...files.sizes].map(([path, size]) =>
    limit(async () => {
      signal.throwIfAborted();
      const sha256 = await digestOfFile(files, path, { ...options, signal });
      return [path, { size, sha256 }] as const;
    }).catch((error: unknown) => {
      // What the others read would be of no use.
      stop.abort(error);
      throw error;
    }),
  );
  await Promise.allSettled(work);
  signal.throwIfAborted();
  return new Map(await Promise.all(work));
}
