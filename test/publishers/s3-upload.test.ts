/** What of a file is sent to a bucket, and what is not: bytes are counted before the server. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HeadObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Artefact, artefactNameOf, type Publisher } from '../../publishers/publisher.ts';
import { claimArtefact, refuseClaimed } from '../../publishers/s3/claim.ts';
import { findUploads, openMultipart } from '../../publishers/s3/multipart.ts';
import { recordDigest } from '../../publishers/s3/recorded-digests.ts';
import { S3Objects } from '../../publishers/s3/s3-objects.ts';
import { createS3Publisher } from '../../publishers/s3/s3-publisher.ts';
import { connectS3, type S3Connection } from '../../remote/s3-connection.ts';
import { TEST_PATIENCE } from '../conformance/publisher-stage.ts';
import { type FaultyProxy, startFaultyProxy } from '../harness/faulty-proxy.ts';
import {
  MOTO_PART_BYTES_MIN,
  MOTO_VARIABLES,
  type MotoServer,
  startMoto,
} from '../harness/moto-server.ts';
import { S3Bucket } from '../harness/s3-bucket.ts';
import { testArtefact } from '../harness/test-artefact.ts';
import { waitFor } from '../harness/wait-for.ts';

const { signal } = new AbortController();
const RELEASE = 'merged-tiny-1.0.0-adapter-tone-3';
const PART = MOTO_PART_BYTES_MIN;
/** Five parts, the last of them short. */
const WEIGHTS = randomBytes(4 * PART + 1000);
/** Longer than others need for what they do while an answer is held back. */
const PATIENCE = { ...TEST_PATIENCE, stallTimeoutMs: 15_000 };
const PARTS = /PUT .*partNumber=/;

let moto: MotoServer;
let proxy: FaultyProxy;
let bucket: S3Bucket;
let s3: S3Connection;
let publisher: Publisher;
let objects: S3Objects;
let directory: string;
let targets = 0;

beforeAll(async () => {
  Object.assign(process.env, MOTO_VARIABLES);
  moto = await startMoto();
  proxy = await startFaultyProxy(moto.url);
  bucket = await S3Bucket.create(moto.url, 'models');
  const patience = PATIENCE;
  s3 = await connectS3({ bucket: 'models', endpoint: moto.url, side: 'publish', patience });
});
afterAll(async () => {
  bucket?.close();
  s3?.close();
  await proxy?.close();
  await moto?.stop();
});
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-s3-'));
  const prefix = `upload/${targets++}`;
  const target = { bucket: 'models', prefix, endpoint: proxy.origin };
  publisher = await createS3Publisher(target, {
    patience: PATIENCE,
    partBytesFor: () => PART,
  });
  objects = new S3Objects(s3, `${prefix}/`, signal);
  proxy.clear();
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const artefactOf = (weights = WEIGHTS) =>
  testArtefact(directory, { release: RELEASE }, { weights });
const keyOf = (path: string) => `${objects.root}${RELEASE}/${path}`;
const WEIGHTS_FILE = 'model.safetensors';

function publish(artefact: Artefact, onItem: (item: string) => void = () => undefined) {
  const onProgress = ({ item }: { item: string }) => onItem(item);
  return publisher.publish(artefact, { signal, onProgress, publishedAt: [] });
}

/** The artefact and nothing else, under its version and beside it. */
async function expectOnly(artefact: Artefact, weights = WEIGHTS): Promise<void> {
  const files = await bucket.read(`${objects.root}${artefactNameOf(artefact)}/`);
  expect([...files.keys()].sort()).toEqual(artefact.files.map(({ path }) => path).sort());
  expect(files.get(WEIGHTS_FILE)?.equals(weights)).toBe(true);
  expect(await bucket.keysAndUploads(objects.root)).toHaveLength(artefact.files.length);
}

const weightsOf = ({ files }: Artefact) => files.find(({ path }) => path === WEIGHTS_FILE)!;

/** What the object itself says of its content. */
async function digestAt(path: string): Promise<string | undefined> {
  const command = new HeadObjectCommand({ Bucket: 'models', Key: keyOf(path) });
  return (await bucket.client.send(command)).Metadata?.['sha256'];
}

function begin(sha256?: string) {
  return openMultipart(s3, { key: keyOf(WEIGHTS_FILE), signal, sha256 });
}

const partOf = (number: number, weights = WEIGHTS) =>
  weights.subarray((number - 1) * PART, number * PART);

describe('a file in parts', () => {
  it('is gone on with where it was interrupted: nothing is sent twice', async () => {
    const artefact = await artefactOf();
    proxy.fail({ kind: 'status', status: 503, path: /partNumber=4/, times: Infinity });
    await expect(publish(artefact)).rejects.toMatchObject({ code: 'publish.unavailable' });
    const sentBefore = new Set(
      proxy.requests
        .filter(({ path, status }) => path.includes('partNumber=') && status === 200)
        .map(({ path }) => /partNumber=(\d)/.exec(path)?.[1]),
    );
    expect([...sentBefore]).toEqual(expect.arrayContaining(['1', '2', '3']));
    proxy.clear();
    const { bytesSent } = await publish(artefact);
    const lacking = [4, 5].filter((number) => !sentBefore.has(String(number)));
    const bytes = lacking.reduce((sum, number) => sum + partOf(number).length, 0);
    expect(proxy.uploadedBytes(PARTS)).toBe(bytes);
    // Files behind the weights had not been sent yet.
    const others = artefact.files.slice(2).reduce((sum, { size }) => sum + size, 0);
    expect(bytesSent).toBe(bytes + others);
    await expectOnly(artefact);
  });

  it('is begun anew where other bytes were sent, and keeps its own digest', async () => {
    const artefact = await artefactOf();
    const left = await begin('ab'.repeat(32));
    await left.put(1, partOf(1));
    await left.put(2, partOf(1));
    await publish(artefact);
    expect(proxy.uploadedBytes(PARTS)).toBe(WEIGHTS.length);
    expect(await digestAt(WEIGHTS_FILE)).toBe(weightsOf(artefact).sha256);
    await expectOnly(artefact);
  });

  it('is not labelled with a digest that an upload was begun with for another file', async () => {
    const artefact = await artefactOf();
    await (await begin('ab'.repeat(32))).put(1, partOf(1));
    await publish(artefact);
    expect(await digestAt(WEIGHTS_FILE)).toBe(weightsOf(artefact).sha256);
    await expectOnly(artefact);
  });

  it('is finished although somebody else drops or finishes its upload', async () => {
    for (const isFinished of [false, true]) {
      const artefact = await artefactOf(randomBytes(3 * PART));
      const weights = weightsOf(artefact);
      proxy.clear();
      const answer = proxy.hold({ path: /partNumber=2/ });
      const publishing = publish(artefact);
      const others = (async () => {
        await waitFor('a slow part', async () => proxy.requests.find(({ fault }) => fault));
        const [found] = await findUploads(s3, keyOf(WEIGHTS_FILE), signal);
        const upload = await openMultipart(s3, { ...found!, signal });
        if (!isFinished) return upload.abort();
        const bytes = await readFile(weights.source);
        const parts = [1, 2, 3].map((number) => upload.put(number, partOf(number, bytes)));
        await upload.complete(await Promise.all(parts));
      })().finally(answer);
      await Promise.all([publishing, others]);
      await expectOnly(artefact, await readFile(weights.source));
      await publisher.withdraw(artefact, signal);
    }
  });

  it('is sent again when something else than was sent is there', async () => {
    const artefact = await artefactOf();
    const answer = proxy.hold({ method: /POST/, path: /uploadId=/ });
    const publishing = publish(artefact);
    const object = await waitFor('the object', async () => {
      const [key] = await bucket.keys(keyOf(WEIGHTS_FILE));
      return key;
    });
    await bucket.put(object, Buffer.alloc(WEIGHTS.length));
    answer();
    await publishing;
    expect(proxy.uploadedBytes(PARTS)).toBe(2 * WEIGHTS.length);
    await expectOnly(artefact);
  });

  it('is begun anew where somebody replaced a part of the upload', async () => {
    const artefact = await artefactOf();
    const answer = proxy.hold({ path: /partNumber=5/ });
    const publishing = publish(artefact);
    const [found] = await waitFor('the last part', async () =>
      proxy.requests.some((seen) => seen.fault)
        ? findUploads(s3, keyOf(WEIGHTS_FILE), signal)
        : undefined,
    );
    const other = await openMultipart(s3, { ...found!, signal });
    await waitFor('the first part', async () => (await other.parts()).has(1) || undefined);
    await other.put(1, partOf(2));
    answer();
    await publishing;
    expect(proxy.uploadedBytes(PARTS)).toBe(2 * WEIGHTS.length);
    await expectOnly(artefact);
  });

  it('is sent once if it is not what the artefact says', async () => {
    const artefact = await artefactOf();
    await writeFile(weightsOf(artefact).source, randomBytes(WEIGHTS.length));
    await expect(publish(artefact)).rejects.toMatchObject({
      code: 'publish.verify-failed',
      message: expect.stringContaining(weightsOf(artefact).source),
    });
    expect(proxy.uploadedBytes(PARTS)).toBe(WEIGHTS.length);
    expect(await bucket.keysAndUploads(keyOf(WEIGHTS_FILE))).toEqual([]);
  });
});

describe('a file that is there', () => {
  it.each(['recorded', 'read back'])('is not sent: its digest is %s', async (how) => {
    const artefact = await artefactOf();
    const weights = weightsOf(artefact);
    // As a merge sends it: the digest is known last, and the file is not kept.
    const upload = await begin();
    const parts = [1, 2, 3, 4, 5].map((number) => upload.put(number, partOf(number)));
    const { etag } = await upload.complete(await Promise.all(parts));
    const { path, sha256 } = weights;
    if (how === 'recorded') await recordDigest(objects, { artefact: RELEASE, path, sha256, etag });
    await rm(weights.source);
    const { bytesSent } = await publish(artefact);
    const gets = proxy.requests.filter(
      (seen) => seen.method === 'GET' && seen.path.includes(`${WEIGHTS_FILE}?x-id=GetObject`),
    );
    expect(gets).toHaveLength(how === 'recorded' ? 0 : 1);
    const others = artefact.files.filter((file) => file !== weights);
    expect(bytesSent).toBe(others.reduce((sum, { size }) => sum + size, 0));
    await expectOnly(artefact);
  });

  it('is not believed to be what its label says', async () => {
    const artefact = await artefactOf();
    const upload = await begin(weightsOf(artefact).sha256);
    const parts = [1, 2, 3, 4, 5].map((number) =>
      upload.put(number, Buffer.alloc(partOf(number).length)),
    );
    await upload.complete(await Promise.all(parts));
    await publish(artefact);
    await expectOnly(artefact);
  });

  it('keeps the version unseen if it is replaced before that is written', async () => {
    const artefact = await artefactOf();
    const { path } = artefact.files.at(-2)!;
    const answer = proxy.hold({ method: /PUT/, path: new RegExp(`${path}\\?`) });
    let replacing: Promise<void> | undefined;
    const publishing = publish(artefact, (item) => {
      if (item !== path) return;
      replacing ??= bucket.put(keyOf(WEIGHTS_FILE), Buffer.alloc(WEIGHTS.length)).then(answer);
    });
    await expect(publishing).rejects.toMatchObject({
      code: 'publish.verify-failed',
      message: expect.stringContaining(WEIGHTS_FILE),
    });
    await replacing;
    expect(await publisher.find(artefact, signal)).toBeUndefined();
    await publish(artefact);
    await expectOnly(artefact);
  });

  it('is replaced if it has other bytes, and what nobody lists is removed', async () => {
    const artefact = await artefactOf();
    await bucket.put(keyOf(WEIGHTS_FILE), Buffer.alloc(WEIGHTS.length));
    await bucket.put(keyOf('config.json'), 'x'.repeat(artefact.files[0]!.size));
    for (let index = 0; index < 12; index++) await bucket.put(keyOf(`old/${index}.bin`), 'old');
    await openMultipart(s3, { key: keyOf('old/unfinished.bin'), signal });
    await publish(artefact);
    await expectOnly(artefact);
  });
});

it.each(['{"tag_name":"v1"}', ''])(
  'leaves alone what is no release of weldline: "%s"',
  async (content) => {
    await bucket.put(keyOf('release.json'), Buffer.from(content));
    const artefact = await artefactOf();
    for (const attempt of [
      () => publish(artefact),
      () => publisher.check(artefact, undefined, signal),
      () => publisher.withdraw(artefact, signal),
    ]) {
      await expect(attempt()).rejects.toMatchObject({
        code: 'publish.conflict',
        message: expect.stringContaining(`${RELEASE} exists already, which is not that release`),
      });
    }
    expect(await publisher.find(artefact, signal)).toBeUndefined();
    expect(await publisher.list(signal)).toEqual([]);
    expect(await bucket.keysAndUploads(objects.root)).toEqual([keyOf('release.json')]);
  },
);

describe('the claim of a version', () => {
  const claim = (manifestDigest: string, staleMs?: number) =>
    claimArtefact({
      ...{ objects, artefact: RELEASE, manifestDigest, planDigest: `plan of ${manifestDigest}` },
      location: 's3://models/x',
      ...(staleMs === undefined ? {} : { staleMs }),
    });

  it('is shared by publications of the same artefact, and kept from others', async () => {
    const first = await claim('one');
    const second = await claim('one');
    await first.renew();
    await second.renew();
    const refused = claim('two');
    await expect(refused).rejects.toMatchObject({
      code: 'publish.conflict',
      message: expect.stringContaining('s3://models/x'),
    });
    await first.release(objects);
    await claim('two');
    await expect(second.renew()).rejects.toMatchObject({ code: 'publish.conflict' });
    // What is another's now is not let go.
    await second.release(objects);
    await expect(claim('one')).rejects.toMatchObject({ code: 'publish.conflict' });
  });

  it('keeps shards of another plan from being sent to its keys', async () => {
    const refuse = (planDigest: string) =>
      refuseClaimed(objects, RELEASE, { planDigest, location: 's3://models/x' });
    await refuse('plan of one');
    await claim('one');
    await refuse('plan of one');
    await expect(refuse('plan of two')).rejects.toMatchObject({ code: 'publish.conflict' });
  });

  it('passes to others when whoever had it is gone', async () => {
    const first = await claim('one');
    await claim('two', 0);
    await expect(first.renew()).rejects.toMatchObject({ code: 'publish.conflict' });
  });

  it('keeps another artefact out while one is published, and lets it in when that fails', async () => {
    const [one, other] = [await artefactOf(), await artefactOf(randomBytes(PART))];
    let refused: Promise<unknown> | undefined;
    const answer = proxy.hold({ path: /partNumber=2/ });
    proxy.fail({ kind: 'status', status: 403, path: /partNumber=3/ });
    const failing = publish(one, (item) => {
      if (item !== WEIGHTS_FILE) return;
      refused ??= publish(other)
        .catch((error: Error) => error)
        .finally(answer);
    });
    await expect(failing).rejects.toMatchObject({ code: 'publish.unauthorized' });
    expect(await refused).toMatchObject({ code: 'publish.conflict' });
    await publish(other);
    await expectOnly(other, await readFile(weightsOf(other).source));
  });
});
