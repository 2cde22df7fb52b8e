import { WeldlineError } from '../engine/errors.ts';

/** A file elsewhere, and what its content must be. */
export interface PinnedFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Hex, of the content. */
  readonly sha256?: string;
  /** Git's blob id (sha1 over a header and the content), where that is what is known. */
  readonly gitSha1?: string;
}

/**
 * The digest that the content must have; undefined where the place knows none and whoever reads sees
 * to it that it stays the same version.
 */
export function pinnedDigest(file: PinnedFile): string | undefined {
  return file.sha256 ?? file.gitSha1;
}

/** For bytes that arrived and are not those that were pinned. */
export function digestMismatch(name: string, file: PinnedFile, actual: string): WeldlineError {
  const kind = file.sha256 === undefined ? 'git sha1' : 'sha256';
  const expected = pinnedDigest(file) ?? '';
  return new WeldlineError(
    name.startsWith('hf://') ? 'hub.digest-mismatch' : 'source.digest-mismatch',
    `What was downloaded of ${name} is not what was pinned: its ${kind} is ${actual} instead ` +
      `of ${expected}. It was removed; run again, and if it stays, suspect the mirror or proxy.`,
    { details: { expected, actual } },
  );
}
