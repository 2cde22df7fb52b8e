import { digestOf } from '../engine/canonical-json.ts';
import { WeldlineError } from '../engine/errors.ts';
import { PATIENCE, type Patience } from '../remote/patience.ts';
import { connectS3, type S3Connection } from '../remote/s3-connection.ts';
import { isAnswer } from '../remote/s3-failure.ts';
import { connectionLimit } from './connection-limit.ts';
import { isPlainPath } from './hub-path.ts';
import type { RemoteFile, RemoteModel, RemoteSource } from './remote-source.ts';
import { openS3File } from './s3-file.ts';

export interface S3SourceOptions {
  /** URL of a server that is not AWS. */
  readonly endpoint?: string | undefined;
  readonly patience?: Patience;
}

/** The largest models have some hundred shards; a whole bucket is no model. */
const FILES_MAX = 5_000;
const HEADS_AT_ONCE = 8;

/** A prefix of a bucket. */
interface Place {
  readonly bucket: string;
  /** Empty, or ending in "/". */
  readonly folder: string;
}

/**
 * Models in buckets: `s3://bucket/prefix`. Credentials and region are found as AWS's own tools find
 * them; without any, buckets are read that anybody may read. A file is pinned by its ETag, and in a
 * bucket with versions by its version too.
 */
export function s3Source(options: S3SourceOptions = {}): RemoteSource {
  const { endpoint, patience = PATIENCE } = options;
  const connections = new Map<string, Promise<S3Connection>>();
  const connect = (bucket: string): Promise<S3Connection> => {
    const connection =
      connections.get(bucket) ?? connectS3({ bucket, endpoint, patience, side: 'source' });
    connections.set(bucket, connection);
    return connection;
  };
  return {
    kind: 's3',
    async resolve(uri, signal) {
      const place = parse(uri);
      const connection = await connect(place.bucket);
      const paths = await listPaths(connection, uri, place, signal);
      const limit = connectionLimit(HEADS_AT_ONCE);
      const files = await Promise.all(
        paths.map((path) => limit(() => pinFile(connection, place, path, signal))),
      );
      const pin = digestOf(files.map(({ path, size, version }) => [path, size, version]));
      return { kind: 's3', uri, pin, files } satisfies RemoteModel;
    },
    open(model, file) {
      const { bucket, folder } = parse(model.uri);
      const key = `${folder}${file.path}`;
      return openS3File({ connect: () => connect(bucket), bucket, key, file });
    },
  };
}

function parse(uri: string): Place {
  const [, bucket, prefix = ''] = /^s3:\/\/([^/?#]+)(?:\/(.*?))?\/?$/.exec(uri) ?? [];
  if (bucket === undefined) {
    throw new WeldlineError(
      'source.invalid-reference',
      'The s3:// reference names no bucket. Write s3://bucket/prefix.',
    );
  }
  return { bucket, folder: prefix === '' ? '' : `${prefix}/` };
}

/** Paths of all files below the prefix, sorted. */
async function listPaths(
  connection: S3Connection,
  uri: string,
  { bucket, folder }: Place,
  signal: AbortSignal | undefined,
): Promise<readonly string[]> {
  const { sdk } = connection;
  const paths: string[] = [];
  let token: string | undefined;
  do {
    const page = await connection.call(uri, signal, (client, call) =>
      client.send(
        new sdk.ListObjectsV2Command({
          ...{ Bucket: bucket, Prefix: folder },
          ...(token && { ContinuationToken: token }),
        }),
        call,
      ),
    );
    for (const { Key: key = '' } of page.Contents ?? []) {
      const path = key.slice(folder.length);
      // Consoles make objects that stand for folders.
      if (path === '' || path.endsWith('/')) continue;
      if (!isPlainPath(path)) throw unsafe(uri, path);
      paths.push(path);
    }
    if (paths.length > FILES_MAX) throw tooMany(uri);
    token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
  } while (token !== undefined);
  if (paths.length === 0) {
    throw new WeldlineError(
      'source.not-found',
      `${uri}/ has no objects. Check the prefix: it is what the keys of the model's files begin with.`,
    );
  }
  return paths.sort();
}

async function pinFile(
  connection: S3Connection,
  { bucket, folder }: Place,
  path: string,
  signal: AbortSignal | undefined,
): Promise<RemoteFile> {
  const key = `${folder}${path}`;
  const { sdk } = connection;
  const head = await connection
    .call(`s3://${bucket}/${key}`, signal, (client, call) =>
      client.send(
        new sdk.HeadObjectCommand({ Bucket: bucket, Key: key, ChecksumMode: 'ENABLED' }),
        call,
      ),
    )
    .catch((error: unknown) => {
      if (!isAnswer(error, 404)) throw error;
      throw new WeldlineError(
        'source.changed',
        `s3://${bucket}/${key} was removed while the model was looked at. Run again.`,
      );
    });
  const { ETag: etag = '', VersionId: versionId, ContentLength: size = 0 } = head;
  // What its metadata says is what somebody wrote there: the server has compared the checksum only.
  const sha256 = fullChecksum(head.ChecksumSHA256, etag);
  // Buckets that had versions once call what came before or after "null".
  const version = versionId === undefined || versionId === 'null' ? etag : `${etag}@${versionId}`;
  return { path, size, ...(sha256 && { sha256 }), version };
}

/** Hex; that of an object sent in parts is the digest of its parts' digests. */
function fullChecksum(base64: string | undefined, etag: string): string | undefined {
  if (base64 === undefined || base64.includes('-') || /-\d+"?$/.test(etag)) return undefined;
  const hex = Buffer.from(base64, 'base64').toString('hex');
  return hex.length === 64 ? hex : undefined;
}

function unsafe(uri: string, path: string): WeldlineError {
  return new WeldlineError(
    'source.invalid-reference',
    `${uri} has an object named ${JSON.stringify(path.slice(0, 120))}, which could end up outside of ` +
      'the cache. weldline does not read such a model.',
  );
}

function tooMany(uri: string): WeldlineError {
  return new WeldlineError(
    'source.invalid-reference',
    `${uri} has more than ${FILES_MAX} objects: it is not one model. Name the prefix of the model itself.`,
  );
}
