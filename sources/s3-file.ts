import type { ByteSource } from '../engine/byte-source.ts';
import { assert, WeldlineError } from '../engine/errors.ts';
import type { S3Connection } from '../remote/s3-connection.ts';
import { isAnswer } from '../remote/s3-failure.ts';
import { checkRange } from './byte-range.ts';
import type { RemoteFile } from './remote-source.ts';

export interface S3File {
  readonly connect: () => Promise<S3Connection>;
  readonly bucket: string;
  readonly key: string;
  /** Its version is an ETag, and behind an "@" the id of a version. */
  readonly file: RemoteFile;
}

/** An object as it was when it was pinned. Makes no request until the first read. */
export function openS3File({ connect, bucket, key, file }: S3File): ByteSource {
  const name = `s3://${bucket}/${key}`;
  const closing = new AbortController();
  return {
    name,
    size: file.size,
    async read(offset, length, room) {
      assert(!closing.signal.aborted, `${name} is read after it was closed`);
      checkRange(name, file.size, offset, length);
      const bytes = room?.subarray(0, length) ?? new Uint8Array(length);
      if (length === 0) return bytes;
      const connection = await connect();
      const [, etag = '', versionId] = /^("?[^@]*)(?:@(.+))?$/.exec(file.version) ?? [];
      const pinned = {
        ...{ Bucket: bucket, Key: key, IfMatch: etag },
        ...(versionId && { VersionId: versionId }),
      };
      // Goes on at the byte reached when a connection breaks.
      let filled = 0;
      await connection
        .call(name, closing.signal, async (client, call) => {
          const Range = `bytes=${offset + filled}-${offset + length - 1}`;
          const command = new connection.sdk.GetObjectCommand({ ...pinned, Range });
          const answer = await client.send(command, call);
          const isAsked = answer.ContentRange?.startsWith(`${Range.replace('=', ' ')}/`);
          if (isAsked !== true && (offset + filled > 0 || length < file.size)) throw noRanges(name);
          for await (const piece of answer.Body as AsyncIterable<Uint8Array>) {
            const part = piece.subarray(0, length - filled);
            bytes.set(part, filled);
            filled += part.byteLength;
          }
          if (filled < length) throw cutShort();
        })
        .catch((error: unknown) => {
          throw isAnswer(error, 412, 'NoSuchVersion') ? changed(name) : error;
        });
      return bytes;
    },
    async close() {
      closing.abort();
    },
  };
}

/** As Node says of a connection that ends too early. */
function cutShort(): Error {
  return Object.assign(new Error('the body ended early'), { code: 'ECONNRESET' });
}

function noRanges(name: string): WeldlineError {
  return new WeldlineError(
    'source.unavailable',
    `${name}: the server sends other bytes than it was asked for. weldline reads models by range; ` +
      'check the endpoint, and the proxy before it.',
  );
}

function changed(name: string): WeldlineError {
  return new WeldlineError(
    'source.changed',
    `${name} is no longer the object that was there when the model was found. Run again to take the ` +
      'model as it is now; what must not change belongs under a prefix of its own.',
  );
}
