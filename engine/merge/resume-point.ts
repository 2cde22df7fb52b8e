import { createHash, type Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { forEachPiece } from '../durable-files.ts';
import type { WrittenPrefix } from './journal.ts';
import { PAGE_BYTES } from './windows.ts';

/** Up to where an unfinished shard holds the bytes that its journal speaks of. */
export interface ResumePoint {
  /** Bytes from the start: a multiple of the page size, or the whole file. */
  readonly begin: number;
  /** SHA-256 of them so far; goes on with what is written. */
  readonly hash: Hash;
}

/**
 * Reads the file from its start and compares what it holds with what was journalled, up to the
 * first difference: a disk that lost power may not have all that was written before.
 */
export async function findResumePoint(
  file: FileHandle,
  size: number,
  prefixes: readonly WrittenPrefix[],
  signal: AbortSignal | undefined,
): Promise<ResumePoint> {
  let sound = { begin: 0, hash: createHash('sha256') };
  const isUsable = ({ end }: WrittenPrefix): boolean =>
    end === size || (end < size && end % PAGE_BYTES === 0);
  // Attempts that overlapped have written their lines in turns.
  const ascending = prefixes.filter(isUsable).sort((a, b) => a.end - b.end);
  for (const { end, sha256 } of ascending) {
    const hash = sound.hash.copy();
    await forEachPiece(file, { begin: sound.begin, end }, (piece) => hash.update(piece), signal);
    if (hash.copy().digest('hex') !== sha256) break;
    sound = { begin: end, hash };
  }
  return sound;
}
