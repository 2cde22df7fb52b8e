import { createHash } from 'node:crypto';
import type { PutObjectCommand, UploadPartCommand } from '@aws-sdk/client-s3';
import type { S3Connection } from '../../remote/s3-connection.ts';
import { isAnswer } from '../../remote/s3-failure.ts';

/** Metadata of an object: hex SHA-256 of its content, where that is known when it is begun. */
export const SHA256_METADATA = 'sha256';

/** S3 takes no smaller part but the last. */
const PART_BYTES_MIN = 5 * 1024 * 1024;
const PARTS_MAX = 10_000;
/** Few enough requests, and little enough is lost with one. */
const PART_BYTES = 16 * 1024 * 1024;
const MIB = 1024 * 1024;

/**
 * How long the parts of a file are: a function of its size alone, so that whoever goes on with an
 * upload cuts it in the same places.
 * @param size bytes
 */
export function partBytesFor(size: number): number {
  const least = Math.ceil(size / PARTS_MAX / MIB) * MIB;
  return Math.max(PART_BYTES_MIN, PART_BYTES, least);
}

export interface UploadedPart {
  /** From 1. */
  readonly number: number;
  /** Bytes. */
  readonly size: number;
  readonly etag: string;
  /** Base64 SHA-256, where the server says it. */
  readonly sha256?: string;
}

/** An object as it is when its parts have become one. */
export interface CompletedUpload {
  readonly etag: string;
}

/** One upload of one object in parts. */
export interface Multipart {
  readonly key: string;
  readonly uploadId: string;
  /** Whether it was found, and may have parts already. */
  readonly isResumed: boolean;
  /** What the server has of it, by number. */
  parts(): Promise<ReadonlyMap<number, UploadedPart>>;
  /** Sends one part, in any order, several at a time. Sent again it replaces what was there. */
  put(number: number, bytes: Uint8Array): Promise<UploadedPart>;
  /** Makes the object of its parts. */
  complete(parts: readonly UploadedPart[]): Promise<CompletedUpload>;
  /** Drops what was sent. Idempotent. */
  abort(): Promise<void>;
}

export interface OpenMultipart {
  readonly key: string;
  readonly signal: AbortSignal;
  /** Goes on with this one; otherwise with the latest unfinished one of the key, if there is any. */
  readonly uploadId?: string | undefined;
  /** Hex SHA-256 of the whole, where it is known; kept with the object. */
  readonly sha256?: string | undefined;
}

/**
 * Goes on with an unfinished upload of a key, or begins one. Parts are checked by the server
 * against their SHA-256.
 * @throws WeldlineError `publish.*`, with S3's `NoSuchUpload` as `reason` in its details if the upload
 *   was finished or aborted by somebody else meanwhile
 */
export async function openMultipart(
  connection: S3Connection,
  options: OpenMultipart,
): Promise<Multipart> {
  const { key, signal } = options;
  const found = options.uploadId ?? (await findUploads(connection, key, signal)).at(-1)?.uploadId;
  const uploadId = found ?? (await beginUpload(connection, options));
  const { bucket, sdk } = connection;
  const what = `s3://${bucket}/${key}`;
  const upload = { Bucket: bucket, Key: key, UploadId: uploadId };
  return {
    key,
    uploadId,
    isResumed: found !== undefined,
    parts: () => listParts(connection, upload, signal),
    async put(number, bytes) {
      const digest = createHash('sha256').update(bytes).digest();
      const sha256 = digest.toString('base64');
      const answer = await connection.call(what, signal, (client, call) => {
        const command = new sdk.UploadPartCommand({
          ...{ ...upload, PartNumber: number, Body: bytes, ContentLength: bytes.byteLength },
          ...{ ChecksumAlgorithm: 'SHA256', ChecksumSHA256: sha256 },
        });
        signWith(command, digest);
        return client.send(command, call);
      });
      return { number, size: bytes.byteLength, etag: answer.ETag ?? '', sha256 };
    },
    async complete(parts) {
      const answer = await connection.call(what, signal, (client, call) =>
        client.send(
          new sdk.CompleteMultipartUploadCommand({
            ...upload,
            MultipartUpload: { Parts: parts.map(toCompletedPart) },
          }),
          call,
        ),
      );
      return { etag: answer.ETag ?? '' };
    },
    abort: () => abortUpload(connection, { key, uploadId }, signal),
  };
}

/** SHA-256 of the parts' digests, in base64: what S3 keeps as the checksum of the whole. */
export function checksumOfParts(parts: readonly UploadedPart[]): string {
  const hash = createHash('sha256');
  for (const { sha256 = '' } of parts) hash.update(Buffer.from(sha256, 'base64'));
  return hash.digest('base64');
}

function toCompletedPart({ number, etag, sha256 }: UploadedPart) {
  return { PartNumber: number, ETag: etag, ...(sha256 && { ChecksumSHA256: sha256 }) };
}

interface FoundUpload {
  readonly key: string;
  readonly uploadId: string;
}

/**
 * Unfinished uploads of a key, or of all that begin with it; the oldest first.
 * @param prefix a whole key, or one that ends in "/"
 */
export async function findUploads(
  connection: S3Connection,
  prefix: string,
  signal: AbortSignal,
): Promise<readonly FoundUpload[]> {
  const { bucket, sdk } = connection;
  const found: (FoundUpload & { readonly begunMs: number })[] = [];
  let page: { KeyMarker?: string | undefined; UploadIdMarker?: string | undefined } = {};
  for (;;) {
    const answer = await connection.call(`s3://${bucket}/${prefix}`, signal, (client, call) =>
      client.send(
        new sdk.ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix, ...page }),
        call,
      ),
    );
    for (const { Key: key, UploadId: uploadId, Initiated: begun } of answer.Uploads ?? []) {
      if (key === undefined || uploadId === undefined) continue;
      if (prefix.endsWith('/') ? !key.startsWith(prefix) : key !== prefix) continue;
      found.push({ key, uploadId, begunMs: begun?.getTime() ?? 0 });
    }
    if (answer.IsTruncated !== true || answer.NextKeyMarker === undefined) break;
    page = { KeyMarker: answer.NextKeyMarker, UploadIdMarker: answer.NextUploadIdMarker };
  }
  return found.sort((one, other) => one.begunMs - other.begunMs);
}

export async function abortUpload(
  connection: S3Connection,
  { key, uploadId }: FoundUpload,
  signal: AbortSignal,
): Promise<void> {
  const { bucket, sdk } = connection;
  await connection
    .call(`s3://${bucket}/${key}`, signal, (client, call) =>
      client.send(
        new sdk.AbortMultipartUploadCommand({ Bucket: bucket, Key: key, UploadId: uploadId }),
        call,
      ),
    )
    .catch((error: unknown) => {
      if (!isAnswer(error, 'NoSuchUpload')) throw error;
    });
}

async function beginUpload(connection: S3Connection, options: OpenMultipart): Promise<string> {
  const { bucket, sdk } = connection;
  const { key, signal, sha256 } = options;
  const answer = await connection.call(`s3://${bucket}/${key}`, signal, (client, call) =>
    client.send(
      new sdk.CreateMultipartUploadCommand({
        ...{ Bucket: bucket, Key: key, ChecksumAlgorithm: 'SHA256' },
        ...(sha256 === undefined ? {} : { Metadata: { [SHA256_METADATA]: sha256 } }),
      }),
      call,
    ),
  );
  return answer.UploadId ?? '';
}

async function listParts(
  connection: S3Connection,
  upload: { readonly Bucket: string; readonly Key: string; readonly UploadId: string },
  signal: AbortSignal,
): Promise<ReadonlyMap<number, UploadedPart>> {
  const parts = new Map<number, UploadedPart>();
  const { sdk } = connection;
  let after: string | undefined;
  for (;;) {
    const page = after === undefined ? {} : { PartNumberMarker: after };
    const answer = await connection.call(
      `s3://${upload.Bucket}/${upload.Key}`,
      signal,
      (client, call) => client.send(new sdk.ListPartsCommand({ ...upload, ...page }), call),
    );
    for (const { PartNumber: number, Size: size, ETag: etag, ChecksumSHA256 } of answer.Parts ??
      []) {
      if (number === undefined || size === undefined || etag === undefined) continue;
      parts.set(number, { number, size, etag, ...(ChecksumSHA256 && { sha256: ChecksumSHA256 }) });
    }
    const next = answer.NextPartNumberMarker;
    if (answer.IsTruncated !== true || next === undefined || next === after) return parts;
    after = next;
  }
}

/**
 * Signs a request with the digest of its body that is at hand: the signer would hash it a second time
 * over HTTP, and would leave it unsigned over HTTPS.
 */
export function signWith(command: UploadPartCommand | PutObjectCommand, digest: Buffer): void {
  (command as PutObjectCommand).middlewareStack.add(
    (next) => (args) => {
      const { headers } = args.request as { headers: Record<string, string> };
      headers['x-amz-content-sha256'] = digest.toString('hex');
      return next(args);
    },
    { step: 'build', name: 'signWithDigest' },
  );
}
