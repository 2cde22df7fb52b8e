import type { ByteSource } from '../../engine/byte-source.ts';
import { assert, WeldlineError } from '../../engine/errors.ts';
import { MANIFEST_FILE, parseManifest } from '../../engine/manifest.ts';
import type { SentFile, SentPart, ShardSink } from '../../engine/merge/shard-sink.ts';
import { connectS3, type S3Connection } from '../../remote/s3-connection.ts';
import { isAnswer } from '../../remote/s3-failure.ts';
import { PATIENCE, type Patience } from '../publisher.ts';
import { RELEASE_RECORD_BYTES_MAX } from '../release-record.ts';
import { refuseClaimed } from './claim.ts';
import { findArtefact, keyOfFile, locationOf } from './find-artefact.ts';
import { openMultipart, type UploadedPart } from './multipart.ts';
import { conflict } from './publish-artefact.ts';
import { recordDigest } from './recorded-digests.ts';
import { S3Objects } from './s3-objects.ts';
import { rootOf, type S3Target } from './s3-publisher.ts';

/**
 * A shard has some of these in memory while it is merged, beside the windows that it is merged in, so they
 * are smaller than those of a file that is only sent.
 */
const PART_BYTES = 8 * 1024 * 1024;
const PARTS_MAX = 10_000;
const MIB = 1024 * 1024;

/** How long the parts of a shard are; S3 takes at most 10,000. */
export function shardPartBytes(size: number): number {
  return Math.max(PART_BYTES, Math.ceil(size / PARTS_MAX / MIB) * MIB);
}

export interface S3SinkOptions {
  readonly target: S3Target;
  /** Name of what will be published there: see `artefactNameOf`. */
  readonly artefact: string;
  readonly planDigest: string;
  readonly patience?: Patience;
  /** Tests have smaller ones. */
  readonly partBytesFor?: (size: number) => number;
}

/** A sink with a connection of its own. */
export interface S3ShardSink extends ShardSink {
  close(): void;
}

/**
 * Where the shards of an artefact lie that will be published to an S3 target; publishing it finds them
 * there.
 */
export async function createS3ShardSink(options: S3SinkOptions): Promise<S3ShardSink> {
  const { target, artefact, patience = PATIENCE, partBytesFor = shardPartBytes } = options;
  const { bucket, region, endpoint } = target;
  const connection = await connectS3({ bucket, region, endpoint, patience, side: 'publish' });
  const at = (signal: AbortSignal) => new S3Objects(connection, rootOf(target), signal);
  const names = at(new AbortController().signal);
  const keyOf = (file: string) => keyOfFile(names, artefact, file);
  return {
    name: locationOf(names, artefact),
    partBytesFor,
    close: () => connection.close(),
    async open(file, uploadId, signal) {
      await refuseOther(at(signal), options);
      const upload = await openMultipart(connection, { key: keyOf(file), uploadId, signal });
      return {
        id: upload.uploadId,
        parts: () => upload.parts(),
        put: async (number, bytes) => toSentPart(await upload.put(number, bytes)),
        complete: async (parts) => {
          // Another release may have been published under the name while this one was merged.
          await refuseOther(at(signal), options);
          await upload.complete(parts.map(toUploadedPart));
        },
      };
    },
    find: (file, signal) => at(signal).head(keyOf(file)),
    findPublished: (file, signal) => findPublished(at(signal), options, file),
    read: (file, there) => objectSource(connection, keyOf(file), there),
    record: (file, { sha256, etag }, signal) =>
      recordDigest(at(signal), { artefact, path: file, sha256, etag }),
  };
}

async function findPublished(
  objects: S3Objects,
  { artefact, planDigest }: S3SinkOptions,
  file: string,
): Promise<(SentFile & { readonly sha256: string }) | undefined> {
  const found = await findArtefact(objects, artefact);
  if (found === undefined || found === 'foreign' || found.isPruned) return undefined;
  if (found.planDigest !== planDigest) return undefined;
  const key = keyOfFile(objects, artefact, MANIFEST_FILE);
  const manifest = await objects.readText(key, RELEASE_RECORD_BYTES_MAX);
  if (manifest === undefined) return undefined;
  const { files } = parseManifest(manifest.text, objects.uri(key));
  const listed = files.find(({ path }) => path === file);
  const there = await objects.head(keyOfFile(objects, artefact, file));
  if (listed === undefined || there?.size !== listed.size) return undefined;
  return { size: there.size, etag: there.etag, sha256: listed.sha256 };
}

/** Nothing is written over a version that is published. */
async function refuseOther(
  objects: S3Objects,
  { artefact, planDigest }: S3SinkOptions,
): Promise<void> {
  const found = await findArtefact(objects, artefact);
  const location = locationOf(objects, artefact);
  if (found === undefined) return refuseClaimed(objects, artefact, { planDigest, location });
  if (found !== 'foreign' && found.planDigest === planDigest) return;
  throw conflict(location, found === 'foreign');
}

/** An object by range, as long as it is the one that was found. */
function objectSource(connection: S3Connection, key: string, { size, etag }: SentFile): ByteSource {
  const closing = new AbortController();
  const { bucket, sdk } = connection;
  const name = `s3://${bucket}/${key}`;
  return {
    name,
    size,
    async read(offset, length, room) {
      assert(offset >= 0 && offset + length <= size, `a read of ${name} at ${offset}`);
      const bytes = room?.subarray(0, length) ?? new Uint8Array(length);
      if (length === 0) return bytes;
      await connection
        .call(name, closing.signal, async (client, call) => {
          const command = new sdk.GetObjectCommand({
            ...{ Bucket: bucket, Key: key, IfMatch: etag },
            Range: `bytes=${offset}-${offset + length - 1}`,
          });
          const { Body: body } = await client.send(command, call);
          let filled = 0;
          for await (const piece of body as AsyncIterable<Uint8Array>) {
            bytes.set(piece.subarray(0, length - filled), filled);
            filled += piece.length;
          }
          if (filled !== length) throw cutShort(filled);
        })
        .catch((error: unknown) => {
          if (isAnswer(error, 412, 404)) throw replaced(name);
          throw error;
        });
      return bytes;
    },
    close: async () => closing.abort(),
  };
}

/** As a connection that breaks: the request is made again. */
function cutShort(bytes: number): Error {
  return Object.assign(new Error(`the answer ended after ${bytes} bytes`), { code: 'ECONNRESET' });
}

function replaced(name: string): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${name} is not what was sent: it was replaced or removed. Look for whatever else writes there, and ` +
      'run again.',
  );
}

function toSentPart({ number, size, etag, sha256 = '' }: UploadedPart): SentPart {
  return { number, size, etag, sha256: Buffer.from(sha256, 'base64').toString('hex') };
}

function toUploadedPart({ sha256, ...part }: SentPart): UploadedPart {
  return { ...part, sha256: Buffer.from(sha256, 'hex').toString('base64') };
}
