import { createHash } from 'node:crypto';

/** What a signature says of one file. */
export interface SignedFile {
  /** Relative, with forward slashes. */
  readonly path: string;
  /** Hex. */
  readonly sha256: string;
}

/**
 * Files in the order of OpenSSF Model Signing: by components of their paths, each by its code
 * points. Neither the order of whole paths (`a-b` would come before `a/b`) nor JavaScript's own,
 * which puts some of the Basic Multilingual Plane behind what is above it.
 */
export function inSigningOrder<File extends SignedFile>(files: readonly File[]): File[] {
  return files
    .map((file) => ({ file, parts: file.path.split('/').map((part) => Buffer.from(part)) }))
    .sort((one, other) => compareParts(one.parts, other.parts))
    .map(({ file }) => file);
}

function compareParts(one: readonly Buffer[], other: readonly Buffer[]): number {
  for (const [index, part] of one.entries()) {
    const counterpart = other[index];
    if (counterpart === undefined) return 1;
    const difference = Buffer.compare(part, counterpart);
    if (difference !== 0) return difference;
  }
  return one.length - other.length;
}

/** SHA-256 over the raw digests of files as they stand, which is the digest of a model; hex. */
export function rootDigest(files: readonly SignedFile[]): string {
  const hash = createHash('sha256');
  for (const { sha256 } of files) hash.update(Buffer.from(sha256, 'hex'));
  return hash.digest('hex');
}
