import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  abortUpload,
  checksumOfParts,
  findUploads,
  openMultipart,
  partBytesFor,
} from '../../publishers/s3/multipart.ts';
import { connectS3, type S3Connection } from '../../remote/s3-connection.ts';
import {
  MOTO_PART_BYTES_MIN,
  MOTO_VARIABLES,
  type MotoServer,
  startMoto,
} from '../harness/moto-server.ts';

const { signal } = new AbortController();
const PARTS = [randomBytes(MOTO_PART_BYTES_MIN), randomBytes(MOTO_PART_BYTES_MIN), randomBytes(9)];

let moto: MotoServer;
let s3: S3Connection;

beforeAll(async () => {
  Object.assign(process.env, MOTO_VARIABLES);
  moto = await startMoto();
  s3 = await connectS3({
    bucket: 'parts',
    endpoint: moto.url,
    side: 'publish',
    patience: { attemptsMax: 2, backoffMs: 1, stallTimeoutMs: 5000, retryAfterMaxMs: 1000 },
  });
  await s3.call('bucket', signal, (client, call) =>
    client.send(new s3.sdk.CreateBucketCommand({ Bucket: 'parts' }), call),
  );
});

afterAll(async () => {
  s3?.close();
  await moto?.stop();
});

async function contentOf(key: string): Promise<Buffer> {
  return s3.call(key, signal, async (client, call) => {
    const command = new s3.sdk.GetObjectCommand({ Bucket: 'parts', Key: key });
    const { Body: body } = await client.send(command, call);
    return Buffer.from(await body!.transformToByteArray());
  });
}

describe('partBytesFor', () => {
  it.each([
    [0, 16],
    [160_000 * 1024 ** 2, 16],
    [160_000 * 1024 ** 2 + 1, 17],
    [5 * 1024 ** 4, 525],
  ])('cuts %i bytes into parts of %i MiB, at most 10,000', (size, mebibytes) => {
    expect(partBytesFor(size)).toBe(mebibytes * 1024 ** 2);
    expect(Math.ceil(size / partBytesFor(size))).toBeLessThanOrEqual(10_000);
  });
});

describe('an upload in parts', () => {
  it('makes an object of parts that came in any order', async () => {
    const upload = await openMultipart(s3, { key: 'a/model', signal, sha256: 'ab'.repeat(32) });
    expect(upload.isResumed).toBe(false);
    const sent = await Promise.all([2, 1, 0].map((at) => upload.put(at + 1, PARTS[at]!)));
    await upload.complete(sent.reverse());
    expect((await contentOf('a/model')).equals(Buffer.concat(PARTS))).toBe(true);
    const head = await s3.call('a/model', signal, (client, call) =>
      client.send(
        new s3.sdk.HeadObjectCommand({ Bucket: 'parts', Key: 'a/model', ChecksumMode: 'ENABLED' }),
        call,
      ),
    );
    expect(head.ChecksumSHA256).toBe(checksumOfParts(sent));
    expect(head.Metadata).toEqual({ sha256: 'ab'.repeat(32) });
  });

  it('goes on with one that was left, and knows its parts', async () => {
    const left = await openMultipart(s3, { key: 'b/model', signal });
    const first = await left.put(1, PARTS[0]!);
    // Another object whose key begins in the same way is not this one.
    await openMultipart(s3, { key: 'b/model-2', signal });
    const upload = await openMultipart(s3, { key: 'b/model', signal });
    expect(upload).toMatchObject({ isResumed: true, uploadId: left.uploadId });
    const { number, size, etag } = first;
    expect([...(await upload.parts()).values()]).toEqual([{ number, size, etag }]);
    await upload.complete([first, await upload.put(2, PARTS[2]!)]);
    expect((await contentOf('b/model')).equals(Buffer.concat([PARTS[0]!, PARTS[2]!]))).toBe(true);
  });

  it('is found below a prefix, and gone when it is aborted, also twice', async () => {
    const upload = await openMultipart(s3, { key: 'c/deep/model', signal });
    await openMultipart(s3, { key: 'c2/model', signal });
    const [found, ...others] = await findUploads(s3, 'c/', signal);
    expect([found, others]).toMatchObject([{ key: 'c/deep/model' }, []]);
    await abortUpload(s3, found!, signal);
    await upload.abort();
    expect(await findUploads(s3, 'c/', signal)).toEqual([]);
    await expect(upload.parts()).rejects.toMatchObject({
      code: 'publish.not-found',
      details: { reason: 'NoSuchUpload' },
    });
  });
});
