import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { toReadError } from '../../engine/disk-errors.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { isAnswer } from '../../remote/s3-failure.ts';
import type { ArtefactFile } from '../publisher.ts';
import type { Claim } from './claim.ts';
import { checksumOfParts, type Multipart, openMultipart, type UploadedPart } from './multipart.ts';
import { readRecordedDigest, recordDigest } from './recorded-digests.ts';
import type { S3Objects } from './s3-objects.ts';

/** Enough to fill a line with round trips of a tenth of a second; each has a part in memory. */
const PARTS_IN_FLIGHT_MAX = 4;
/** Others may finish or abort the upload that is gone on with, each time another. */
const UPLOADS_MAX = 4;

export interface UploadOptions {
  readonly objects: S3Objects;
  readonly artefact: string;
  readonly file: ArtefactFile;
  /** Bytes of what is at its key now; undefined where nothing is. */
  readonly sizeThere: number | undefined;
  /** Of all parts but the last; a file that has no more is sent at once. */
  readonly partBytes: number;
  readonly claim: Claim;
  /** Bytes of it that arrived, were there or were sent. */
  readonly onBytes: (bytesDone: number) => void;
}

export interface Uploaded {
  readonly bytesSent: number;
  /** Of the object that was compared with the file's digest. */
  readonly etag: string;
}

/**
 * Sees to it that a file is at its key, with the bytes its digest says.
 * @throws WeldlineError `source.not-found`, `disk.read-failed` or `publish.verify-failed` for a file that
 *   is not what the artefact says, and what the server makes of it
 */
export async function uploadFile(options: UploadOptions): Promise<Uploaded> {
  const { file, partBytes, sizeThere } = options;
  const held = sizeThere === file.size ? await findHeld(options) : undefined;
  if (held !== undefined) return { bytesSent: 0, etag: held };
  const handle = await open(file.source, 'r').catch((error: unknown) => {
    throw toReadError(error, file.source);
  });
  try {
    if (file.size <= partBytes) return await uploadWhole(options, handle);
    return await uploadInParts(options, handle);
  } finally {
    await handle.close();
  }
}

function keyOf({ objects, artefact, file }: UploadOptions): string {
  return `${objects.root}${artefact}/${file.path}`;
}

/**
 * The ETag of the object at its key if that is the file. The digest that its metadata names is not
 * asked: it was written there before the bytes, and by anybody.
 */
async function findHeld(options: UploadOptions): Promise<string | undefined> {
  const { objects, artefact, file } = options;
  const head = await objects.head(keyOf(options));
  if (head?.size !== file.size) return undefined;
  const { etag, checksum, isChecksumOfParts } = head;
  if (checksum !== undefined && !isChecksumOfParts) {
    return checksum === toBase64(file.sha256) ? etag : undefined;
  }
  const known =
    (await readRecordedDigest(objects, { artefact, path: file.path, etag })) ??
    (await objects.readDigest(keyOf(options)));
  return known === file.sha256 ? etag : undefined;
}

async function uploadWhole(options: UploadOptions, handle: FileHandle): Promise<Uploaded> {
  const { file, objects, claim, onBytes } = options;
  const bytes = Buffer.alloc(file.size);
  await fill(handle, bytes, 0, file);
  if ((await handle.stat()).size !== file.size) throw changedFile(file);
  if (createHash('sha256').update(bytes).digest('hex') !== file.sha256) throw changedFile(file);
  await claim.hold();
  const { etag, isChecked } = await objects.put(keyOf(options), bytes);
  const there = isChecked ? etag : await verify(options, toBase64(file.sha256));
  if (typeof there !== 'string') throw there;
  onBytes(file.size);
  return { bytesSent: file.size, etag: there };
}

async function uploadInParts(options: UploadOptions, handle: FileHandle): Promise<Uploaded> {
  const { file, objects } = options;
  const key = keyOf(options);
  let bytesSent = 0;
  for (let attempt = 1; ; attempt++) {
    const upload = await openMultipart(objects.connection, {
      ...{ key, signal: objects.signal, sha256: file.sha256 },
    });
    try {
      const parts = await sendParts(options, handle, upload, (bytes) => {
        bytesSent += bytes;
      });
      await options.claim.hold();
      await completeOrDrop(upload, parts, attempt === 1);
      const there = await verify(options, checksumOfParts(parts));
      if (typeof there !== 'string') throw new UploadSpoilt(there);
      return { bytesSent, etag: there };
    } catch (error) {
      objects.signal.throwIfAborted();
      const isSpoilt = error instanceof UploadSpoilt;
      const isOver = isSpoilt || (await isGone(upload, error));
      if (!isOver || attempt === UPLOADS_MAX) throw isSpoilt ? error.failure : error;
      // Who finished it may have been another publication of this very file.
      const etag = await findHeld(options);
      if (etag !== undefined) return { bytesSent, etag };
    }
  }
}

/**
 * Ends an upload. One that its server will not end, since it has lost something of it or somebody has
 * replaced a part, would not end at the next attempt either: it is dropped, for once.
 */
async function completeOrDrop(
  upload: Multipart,
  parts: readonly UploadedPart[],
  mayDrop: boolean,
): Promise<void> {
  try {
    await upload.complete(parts);
  } catch (error) {
    const isRefused = error instanceof WeldlineError && isAnswer(error, 400, 500);
    if (!mayDrop || !isRefused || (await isGone(upload, error))) throw error;
    await upload.abort();
    throw new UploadSpoilt(error);
  }
}

/** An upload that will not become the file, and is removed: another may. */
class UploadSpoilt extends Error {
  readonly failure: WeldlineError;
  constructor(failure: WeldlineError) {
    super(failure.message);
    this.failure = failure;
  }
}

/** Whether an upload failed because somebody else has finished or aborted it. */
async function isGone(upload: Multipart, error: unknown): Promise<boolean> {
  if (isAnswer(error, 'NoSuchUpload')) return true;
  if (!(error instanceof WeldlineError) || error.details['reason'] === undefined) return false;
  // Not every server says so when a part or the end of it is sent.
  return upload.parts().then(
    () => false,
    (gone: unknown) => isAnswer(gone, 'NoSuchUpload'),
  );
}

/** Reads the file once, and sends each part that the server does not have. */
async function sendParts(
  options: UploadOptions,
  handle: FileHandle,
  upload: Multipart,
  onSent: (bytes: number) => void,
): Promise<readonly UploadedPart[]> {
  const { file, partBytes, claim, onBytes } = options;
  const there = upload.isResumed ? await upload.parts() : new Map<number, UploadedPart>();
  const hash = createHash('sha256');
  const parts: UploadedPart[] = [];
  const inFlight = new Set<Promise<void>>();
  // Kept, since a part may fail while nobody waits for it.
  const failures: unknown[] = [];
  let bytesDone = 0;
  const done = (part: UploadedPart): void => {
    parts.push(part);
    bytesDone += part.size;
    onBytes(bytesDone);
  };
  try {
    for (let number = 1, at = 0; at < file.size; number++, at += partBytes) {
      const bytes = Buffer.allocUnsafe(Math.min(partBytes, file.size - at));
      await fill(handle, bytes, at, file);
      hash.update(bytes);
      const listed = there.get(number);
      if (listed !== undefined) {
        const sha256 = createHash('sha256').update(bytes).digest('base64');
        if (!isSamePart(listed, bytes, sha256)) {
          // Begun for another file, whose digest would be the label of what it becomes.
          await upload.abort();
          throw new UploadSpoilt(notWhatWasSent(options));
        }
        done({ ...listed, sha256 });
        continue;
      }
      await claim.hold();
      const sending = upload.put(number, bytes).then((part) => {
        onSent(part.size);
        done(part);
      });
      const tracked = sending
        .catch((error: unknown) => failures.push(error))
        .then(() => void inFlight.delete(tracked));
      inFlight.add(tracked);
      if (inFlight.size >= PARTS_IN_FLIGHT_MAX) await Promise.race(inFlight);
      if (failures.length > 0) break;
    }
  } finally {
    await Promise.all(inFlight);
  }
  if (failures.length > 0) throw failures[0];
  if ((await handle.stat()).size !== file.size || hash.digest('hex') !== file.sha256) {
    await upload.abort();
    throw changedFile(file);
  }
  return parts.sort((one, other) => one.number - other.number);
}

/** By the checksum where the server lists it, otherwise by the ETag, which is the MD5 of a part. */
function isSamePart(listed: UploadedPart, bytes: Buffer, sha256: string): boolean {
  if (listed.size !== bytes.byteLength) return false;
  if (listed.sha256 !== undefined) return listed.sha256 === sha256;
  return listed.etag.replaceAll('"', '') === createHash('md5').update(bytes).digest('hex');
}

/**
 * Compares what arrived with what was sent, before anybody is told that it is there.
 * @returns its ETag, or what is wrong with it
 */
async function verify(options: UploadOptions, checksum: string): Promise<string | WeldlineError> {
  const { objects, artefact, file } = options;
  const key = keyOf(options);
  const head = await objects.head(key);
  const isWhole = head?.size === file.size;
  // A server that keeps no checksums is read from again.
  const isRight =
    isWhole &&
    (head.checksum === undefined
      ? (await objects.readDigest(key)) === file.sha256
      : head.checksum === checksum);
  const isForeign = head?.sha256 !== undefined && head.sha256 !== file.sha256;
  if (!isRight || isForeign) {
    await objects.remove([key]);
    return notWhatWasSent(options);
  }
  if (head.checksum === undefined || head.isChecksumOfParts) {
    const { path, sha256 } = file;
    await recordDigest(objects, { artefact, path, sha256, etag: head.etag });
  }
  return head.etag;
}

/** Reads exactly `bytes.length` bytes at an offset. */
async function fill(
  handle: FileHandle,
  bytes: Buffer,
  offset: number,
  file: ArtefactFile,
): Promise<void> {
  for (let filled = 0; filled < bytes.length; ) {
    const { bytesRead } = await handle
      .read(bytes, filled, bytes.length - filled, offset + filled)
      .catch((error: unknown) => {
        throw toReadError(error, file.source);
      });
    if (bytesRead === 0) throw changedFile(file);
    filled += bytesRead;
  }
}

function notWhatWasSent(options: UploadOptions): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${options.objects.uri(keyOf(options))} was not what was sent: its size or checksum differed. It ` +
      'is removed; publish again, and look for whatever else writes there.',
  );
}

export function changedFile({ path, source }: ArtefactFile): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${path} is no longer what was judged: ${source} has other bytes than its digest says. Nothing ` +
      'was published; make the release again.',
  );
}

function toBase64(hex: string): string {
  return Buffer.from(hex, 'hex').toString('base64');
}
