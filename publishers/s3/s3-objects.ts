import { createHash } from 'node:crypto';
import type { S3Connection } from '../../remote/s3-connection.ts';
import { isAnswer } from '../../remote/s3-failure.ts';
import { SHA256_METADATA, signWith } from './multipart.ts';

/** What S3 knows of an object without reading it. */
export interface ObjectHead {
  /** Bytes. */
  readonly size: number;
  readonly etag: string;
  /** When it was written and what time it was when this was asked, by the server's clock. */
  readonly ageMs: number;
  /** Base64 SHA-256 of the object, or of its parts' digests where it came in parts. */
  readonly checksum?: string;
  readonly isChecksumOfParts: boolean;
  /** Hex SHA-256 that whoever wrote it gave it. */
  readonly sha256?: string;
}

export interface ListedObject {
  /** Bytes. */
  readonly size: number;
  readonly etag: string;
}

export interface TextObject {
  readonly text: string;
  readonly etag: string;
}

export interface WrittenObject {
  readonly etag: string;
  readonly isChecked: boolean;
}

/** What a write depends on; S3 refuses it with 412 otherwise. */
export type Condition = { readonly ifAbsent: true } | { readonly ifEtag: string };

/** A batch of deletions has no more. */
const DELETED_MAX = 1000;

/** Objects of a target as publishing needs them: keys in, small values out. */
export class S3Objects {
  readonly connection: S3Connection;
  /** What all keys of the target begin with: nothing, or a prefix that ends in "/". */
  readonly root: string;
  readonly signal: AbortSignal;

  constructor(connection: S3Connection, root: string, signal: AbortSignal) {
    this.connection = connection;
    this.root = root;
    this.signal = signal;
  }

  uri(key: string): string {
    return `s3://${this.connection.bucket}/${key}`;
  }

  /** @returns undefined if there is no such object */
  async head(key: string): Promise<ObjectHead | undefined> {
    const { sdk, bucket } = this.connection;
    const answer = await absentIs404(
      this.connection.call(this.uri(key), this.signal, async (client, call) => {
        const command = new sdk.HeadObjectCommand({
          ...{ Bucket: bucket, Key: key, ChecksumMode: 'ENABLED' },
        });
        const date: { header?: string | undefined } = {};
        command.middlewareStack.add(
          (next) => async (args) => {
            const result = await next(args);
            date.header = (result.response as { headers: Record<string, string> }).headers['date'];
            return result;
          },
          { step: 'deserialize', priority: 'low', name: 'keepDate' },
        );
        return { ...(await client.send(command, call)), serverDate: date.header };
      }),
    );
    if (answer === undefined) return undefined;
    // "<digest>-<number of parts>" by S3; some servers leave the number out.
    const [checksum, parts] = answer.ChecksumSHA256?.split('-') ?? [];
    const sha256 = answer.Metadata?.[SHA256_METADATA];
    const now = Date.parse(answer.serverDate ?? '') || Date.now();
    return {
      size: answer.ContentLength ?? 0,
      etag: answer.ETag ?? '',
      ageMs: Math.max(0, now - (answer.LastModified?.getTime() ?? now)),
      isChecksumOfParts: parts !== undefined || isMultipartEtag(answer.ETag),
      ...(checksum && { checksum }),
      ...(sha256 && { sha256 }),
    };
  }

  /** Reads an object that is a small text; undefined if there is none. */
  async readText(key: string, bytesMax: number): Promise<TextObject | undefined> {
    const { sdk, bucket } = this.connection;
    return absentIs404(
      this.connection.call(this.uri(key), this.signal, async (client, call) => {
        const command = new sdk.GetObjectCommand({
          ...{ Bucket: bucket, Key: key, Range: `bytes=0-${bytesMax - 1}` },
        });
        const { Body: body, ETag: etag = '' } = await client.send(command, call);
        return { text: (await body?.transformToString('utf8')) ?? '', etag };
      }),
    ).catch((error: unknown) => {
      // An empty object has no first byte to begin at.
      if (isAnswer(error, 416)) return { text: '', etag: '' };
      throw error;
    });
  }

  /** Hex SHA-256 of what is there, read from one end to the other. */
  async readDigest(key: string): Promise<string> {
    const { sdk, bucket } = this.connection;
    return this.connection.call(this.uri(key), this.signal, async (client, call) => {
      const command = new sdk.GetObjectCommand({ Bucket: bucket, Key: key });
      const { Body: body } = await client.send(command, call);
      const hash = createHash('sha256');
      for await (const piece of body as AsyncIterable<Uint8Array>) hash.update(piece);
      return hash.digest('hex');
    });
  }

  /**
   * Writes a whole object, which the server checks against its SHA-256.
   * @returns its ETag, and whether the server says that it has kept the checksum
   * @throws WeldlineError `publish.*`, with the status 412 if the condition does not hold
   */
  async put(key: string, bytes: Uint8Array, condition?: Condition): Promise<WrittenObject> {
    const { sdk, bucket } = this.connection;
    const digest = createHash('sha256').update(bytes).digest();
    const checksum = digest.toString('base64');
    const answer = await this.connection.call(this.uri(key), this.signal, (client, call) => {
      const command = new sdk.PutObjectCommand({
        ...{ Bucket: bucket, Key: key, Body: bytes, ContentLength: bytes.byteLength },
        ...{ ChecksumAlgorithm: 'SHA256', ChecksumSHA256: checksum },
        Metadata: { [SHA256_METADATA]: digest.toString('hex') },
        ...(condition && toHeaders(condition)),
      });
      signWith(command, digest);
      return client.send(command, call);
    });
    return { etag: answer.ETag ?? '', isChecked: answer.ChecksumSHA256 === checksum };
  }

  /** All objects whose keys begin with a prefix, by key. */
  async below(prefix: string): Promise<ReadonlyMap<string, ListedObject>> {
    const found = new Map<string, ListedObject>();
    for await (const page of this.#pages(prefix, undefined)) {
      for (const { Key: key, Size: size = 0, ETag: etag = '' } of page.Contents ?? []) {
        if (key !== undefined) found.set(key, { size, etag });
      }
    }
    return found;
  }

  /** Names of what is directly below a prefix that ends in "/" and has something below itself. */
  async folders(prefix: string): Promise<readonly string[]> {
    const names: string[] = [];
    for await (const page of this.#pages(prefix, '/')) {
      for (const { Prefix: found = '' } of page.CommonPrefixes ?? []) {
        names.push(found.slice(prefix.length, -1));
      }
    }
    return names;
  }

  /** Deletes objects; those that are gone already are no error. */
  async remove(keys: Iterable<string>): Promise<void> {
    const { sdk, bucket } = this.connection;
    const all = [...keys].map((Key) => ({ Key }));
    for (let at = 0; at < all.length; at += DELETED_MAX) {
      const objects = all.slice(at, at + DELETED_MAX);
      const what = this.uri(objects[0]!.Key);
      await this.connection.call(what, this.signal, async (client, call) => {
        const command = new sdk.DeleteObjectsCommand({
          ...{ Bucket: bucket, Delete: { Objects: objects, Quiet: true } },
        });
        const [failed] = (await client.send(command, call)).Errors ?? [];
        // As if it had been asked for alone: refused or to be tried again.
        if (failed !== undefined) throw toSdkError(failed.Code);
      });
    }
  }

  async *#pages(prefix: string, delimiter: string | undefined) {
    const { sdk, bucket } = this.connection;
    let token: string | undefined;
    do {
      const page = await this.connection.call(this.uri(prefix), this.signal, (client, call) =>
        client.send(
          new sdk.ListObjectsV2Command({
            ...{ Bucket: bucket, Prefix: prefix },
            ...(delimiter && { Delimiter: delimiter }),
            ...(token && { ContinuationToken: token }),
          }),
          call,
        ),
      );
      yield page;
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
  }
}

/** What a key that is absent is answered with; an absent bucket stays an error. */
async function absentIs404<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (isAnswer(error, 404) && !isAnswer(error, 'NoSuchBucket')) return undefined;
    throw error;
  }
}

function toHeaders(condition: Condition) {
  return 'ifAbsent' in condition ? { IfNoneMatch: '*' } : { IfMatch: condition.ifEtag };
}

function isMultipartEtag(etag: string | undefined): boolean {
  return /-\d+"?$/.test(etag ?? '');
}

function toSdkError(code: string | undefined): Error {
  const status = code === 'AccessDenied' ? 403 : 500;
  const error = Object.assign(new Error(code), { $metadata: { httpStatusCode: status } });
  error.name = code ?? 'Error';
  return error;
}
