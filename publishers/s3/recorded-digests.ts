import type { S3Objects } from './s3-objects.ts';

/** Where weldline keeps what it needs until an artefact is published, below a target's prefix. */
export function notesPrefix({ root }: S3Objects, artefact: string): string {
  return `${root}.weldline/${artefact}/`;
}

/** What is known of an object that was written before its digest was. */
export interface RecordedDigest {
  /** Hex. */
  readonly sha256: string;
  /** Of the object when it had this digest; another object under its key has another. */
  readonly etag: string;
}

const RECORD_BYTES_MAX = 4096;

/**
 * Keeps the digest of a file of an artefact that is not published yet, so that publishing it finds the
 * file there: for shards, which are sent while they are merged, and whose digest is known last.
 */
export async function recordDigest(
  objects: S3Objects,
  file: { readonly artefact: string; readonly path: string } & RecordedDigest,
): Promise<void> {
  const { artefact, path, sha256, etag } = file;
  await objects.put(
    keyOfRecord(objects, artefact, path),
    Buffer.from(JSON.stringify({ sha256, etag })),
  );
}

/** The digest that was recorded of a file; of another object under its key nothing is known. */
export async function readRecordedDigest(
  objects: S3Objects,
  file: { readonly artefact: string; readonly path: string; readonly etag: string },
): Promise<string | undefined> {
  const key = keyOfRecord(objects, file.artefact, file.path);
  const found = await objects.readText(key, RECORD_BYTES_MAX);
  if (found === undefined) return undefined;
  try {
    const { sha256, etag } = JSON.parse(found.text) as Partial<RecordedDigest>;
    return etag === file.etag ? sha256 : undefined;
  } catch {
    return undefined;
  }
}

export function keyOfRecord(objects: S3Objects, artefact: string, path: string): string {
  return `${notesPrefix(objects, artefact)}digests/${path}.json`;
}
