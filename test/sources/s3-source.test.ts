import { createHash } from 'node:crypto';
import {
  PutBucketVersioningCommand,
  PutObjectAclCommand,
  PutObjectCommand,
} from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { RemoteSource } from '../../sources/remote-source.ts';
import { s3Source } from '../../sources/s3-source.ts';
import { testByteSource } from '../conformance/byte-source.ts';
import { type FaultyProxy, startFaultyProxy } from '../harness/faulty-proxy.ts';
import { MOTO_PAGE, MOTO_VARIABLES, type MotoServer, startMoto } from '../harness/moto-server.ts';
import { S3Bucket } from '../harness/s3-bucket.ts';
import { testBytes } from '../hub-server/test-bytes.ts';

const PATIENCE = { attemptsMax: 3, backoffMs: 5, stallTimeoutMs: 2_000, retryAfterMaxMs: 1000 };
const WEIGHTS = testBytes(300_000);

let moto: MotoServer;
let proxy: FaultyProxy;
let bucket: S3Bucket;
let source: RemoteSource;
let models = 0;

beforeAll(async () => {
  Object.assign(process.env, MOTO_VARIABLES);
  moto = await startMoto();
  proxy = await startFaultyProxy(moto.url);
  bucket = await S3Bucket.create(moto.url, 'models');
  source = s3Source({ endpoint: proxy.origin, patience: PATIENCE });
});
afterEach(() => proxy.clear());
afterAll(async () => {
  bucket?.close();
  await proxy?.close();
  await moto?.stop();
});

/** @returns the URI of a model with these files */
async function store(files: Readonly<Record<string, Buffer | string>>): Promise<string> {
  const prefix = `team/model-${models++}`;
  for (const [path, content] of Object.entries(files)) {
    await bucket.put(`${prefix}/${path}`, content);
  }
  return `s3://models/${prefix}`;
}

async function openOnly(content: Buffer) {
  const model = await source.resolve(await store({ 'model.safetensors': content }));
  return source.open(model, model.files[0]!);
}

testByteSource('s3Source', async (content) => ({ source: await openOnly(content) }));

describe('finding a model in a bucket', () => {
  it('lists its files, page by page, and not those of its neighbours', async () => {
    const names = Array.from({ length: 2 * MOTO_PAGE + 3 }, (_, index) => `shard-${index}.bin`);
    const uri = await store({
      ...Object.fromEntries(names.map((name) => [name, name])),
      'original/params.json': '{}',
      'original/': Buffer.alloc(0),
    });
    await bucket.put(`${uri.slice('s3://models/'.length)}-2/config.json`, '{}');
    const model = await source.resolve(uri);
    expect(model).toMatchObject({ kind: 's3', uri });
    expect(model.files.map(({ path }) => path)).toEqual([...names, 'original/params.json'].sort());
    const shard = model.files.find(({ path }) => path === 'shard-11.bin');
    expect(shard).toMatchObject({ size: 'shard-11.bin'.length });
  });

  it('knows the digests that the server compared, and pins by what is there', async () => {
    const uri = await store({ 'config.json': '{}', 'model.safetensors': WEIGHTS });
    const key = `${uri.slice('s3://models/'.length)}/README.md`;
    const checksum = createHash('sha256').update('# A model');
    const put = {
      Bucket: 'models',
      Key: key,
      Body: '# A model',
      ChecksumAlgorithm: 'SHA256',
    } as const;
    await bucket.client.send(new PutObjectCommand(put));
    const model = await source.resolve(uri);
    const readme = model.files.find(({ path }) => path === 'README.md');
    expect(readme?.sha256).toBe(checksum.digest('hex'));
    expect(await source.resolve(uri)).toEqual(model);
    // Anybody may have written this beside whatever bytes.
    await bucket.put(key, '# Another', { sha256: 'ab'.repeat(32) });
    const other = await source.resolve(uri);
    expect(other.pin).not.toBe(model.pin);
    expect(other.files.find(({ path }) => path === 'README.md')).not.toHaveProperty('sha256');
  });

  it.each([
    [
      's3://models/nothing/here',
      'source.not-found',
      /s3:\/\/models\/nothing\/here\/ has no objects/,
    ],
    ['s3://absent-bucket/model', 'source.not-found', /404 \(NoSuchBucket\)/],
    ['s3:///model', 'source.invalid-reference', /names no bucket/],
  ])('says what is wrong with %s', async (uri, code, message) => {
    await expect(source.resolve(uri)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  it('refuses objects whose names lead out of the model', async () => {
    const uri = await store({ 'config.json': '{}', 'a/../../../evil.json': '{}' });
    await expect(source.resolve(uri)).rejects.toMatchObject({ code: 'source.invalid-reference' });
  });

  it('says that it may not read, and shows no credentials', async () => {
    const uri = await store({ 'config.json': '{}' });
    proxy.clear();
    proxy.fail({ kind: 'status', status: 403, times: Infinity });
    const error = await source.resolve(uri).catch((thrown: Error) => thrown);
    expect(error).toMatchObject({ code: 'source.unauthorized' });
    expect(proxy.requests).toHaveLength(1);
    const text = JSON.stringify([error, String(error), (error as Error).stack]);
    for (const secret of Object.values(MOTO_VARIABLES).slice(0, 2)) {
      expect(text).not.toContain(secret);
    }
  });
});

describe('reading an object', () => {
  it('goes on after errors, lost answers and silence', async () => {
    const opened = await openOnly(WEIGHTS);
    for (const fault of [
      { kind: 'status', status: 503 },
      { kind: 'drop-answer' },
      { kind: 'stall' },
      { kind: 'status', status: 429, headers: { 'retry-after': '0' } },
    ] as const) {
      proxy.clear();
      proxy.fail(fault);
      const bytes = await opened.read(1000, 200_000);
      expect(Buffer.compare(bytes, WEIGHTS.subarray(1000, 201_000))).toBe(0);
      expect(proxy.requests).toHaveLength(2);
    }
  });

  it('gives up after so many failures', async () => {
    const opened = await openOnly(WEIGHTS);
    proxy.fail({ kind: 'status', status: 500, times: Infinity });
    await expect(opened.read(0, 1)).rejects.toMatchObject({ code: 'source.unavailable' });
    expect(proxy.requests.filter(({ status }) => status === 500)).toHaveLength(3);
  });

  it('notices that the object is another, or gone', async () => {
    const uri = await store({ 'model.safetensors': WEIGHTS });
    const model = await source.resolve(uri);
    const key = `${uri.slice('s3://models/'.length)}/model.safetensors`;
    await bucket.put(key, testBytes(WEIGHTS.length, 7));
    const opened = source.open(model, model.files[0]!);
    await expect(opened.read(0, 10)).rejects.toMatchObject({
      code: 'source.changed',
      message: expect.stringContaining(`${uri}/model.safetensors`),
    });
    await bucket.remove(key);
    await expect(opened.read(0, 10)).rejects.toMatchObject({ code: 'source.not-found' });
  });

  it('reads the pinned version of a bucket that has versions', async () => {
    const versioned = await S3Bucket.create(moto.url, 'versioned');
    await versioned.client.send(
      new PutBucketVersioningCommand({
        Bucket: 'versioned',
        VersioningConfiguration: { Status: 'Enabled' },
      }),
    );
    await versioned.put('model/config.json', 'before');
    const model = await source.resolve('s3://versioned/model');
    await versioned.put('model/config.json', 'after it');
    const bytes = await source.open(model, model.files[0]!).read(0, 6);
    expect(Buffer.from(bytes).toString()).toBe('before');
    versioned.close();
  });

  it('reads what anybody may read without credentials', async () => {
    const uri = await store({ 'config.json': '{}' });
    const key = `${uri.slice('s3://models/'.length)}/config.json`;
    const { AWS_ACCESS_KEY_ID: id, ...rest } = MOTO_VARIABLES;
    const publish = new PutObjectAclCommand({ Bucket: 'models', Key: key, ACL: 'public-read' });
    delete process.env['AWS_ACCESS_KEY_ID'];
    const home = process.env['HOME'];
    process.env['HOME'] = '/nonexistent';
    try {
      const anybody = s3Source({ endpoint: proxy.origin, patience: PATIENCE });
      await expect(anybody.resolve(uri)).rejects.toMatchObject({ code: 'source.unauthorized' });
      await bucket.client.send(publish);
      const model = await anybody.resolve(uri);
      expect(Buffer.from(await anybody.open(model, model.files[0]!).read(0, 2)).toString()).toBe(
        '{}',
      );
    } finally {
      Object.assign(process.env, { ...rest, AWS_ACCESS_KEY_ID: id, HOME: home });
    }
  });
});
