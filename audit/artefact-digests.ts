import { digestOfFile } from '../sources/open-input.ts';
import type { OpenedArtefact } from './open-artefact.ts';

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
  const found = new Map<string, FoundFile>();
  for (const [path, size] of files.sizes) {
    options.signal.throwIfAborted();
    found.set(path, { size, sha256: await digestOfFile(files, path, options) });
  }
  return found;
}
