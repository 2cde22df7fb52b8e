import { createHash } from 'node:crypto';
import { appendFile, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { digestFile } from '../../engine/durable-files.ts';
import type { CompletedShard } from '../../engine/merge/journal.ts';
import { mergeShard } from '../../engine/merge/merge-shard.ts';
import { resourcesFor } from '../../engine/merge/resources.ts';
import type { ShardSink } from '../../engine/merge/shard-sink.ts';
import type { Plan } from '../../engine/plan/plan.ts';
import { planDigest } from '../../engine/plan/plan.ts';
import { compileKernel } from '../../kernels/index.ts';
import { createS3Publisher } from '../../publishers/s3/s3-publisher.ts';
import {
  createS3ShardSink,
  type S3ShardSink,
  shardPartBytes,
} from '../../publishers/s3/shard-sink.ts';
import { connectS3, type S3Connection } from '../../remote/s3-connection.ts';
import { writeLargeModel } from '../crash/large-model.ts';
import {
  type Directories,
  mergeDirectories,
  planDirectories,
} from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { MOTO_VARIABLES, type MotoServer, startMoto } from '../harness/moto-server.ts';

const BUCKET = 'streams';
const SHARD = 'model.safetensors';
const PATIENCE = { attemptsMax: 2, backoffMs: 1, stallTimeoutMs: 10_000, retryAfterMaxMs: 1000 };
const PART_BYTES = 3 * 1024 * 1024;
/** The beginning of a part is that of a window, and no other edge of one is. */
const WINDOW_BYTES = 512 * 1024;

let moto: MotoServer;
let s3: S3Connection;
let root: string;
let inputs: Directories;
let plan: Plan;
let expected: CompletedShard;

beforeAll(async () => {
  Object.assign(process.env, MOTO_VARIABLES);
  moto = await startMoto();
  const at = { bucket: BUCKET, endpoint: moto.url, patience: PATIENCE };
  s3 = await connectS3({ ...at, side: 'publish' });
  await s3.call('bucket', undefined, (client, call) =>
    client.send(new s3.sdk.CreateBucketCommand({ Bucket: BUCKET }), call),
  );
  root = await mkdtemp(join(tmpdir(), 'weldline-sink-'));
  inputs = await writeLargeModel(root, { tensors: 3, shards: 1 });
  plan = await planDirectories(inputs);
  const output = join(root, 'output');
  await mergeDirectories({ ...inputs, plan, output, threads: 2 });
  expected = await digestFile(join(output, SHARD));
});

afterAll(async () => {
  s3?.close();
  await moto?.stop();
  await rm(root, { recursive: true, force: true });
});

const target = () => ({ bucket: BUCKET, prefix: 'models', endpoint: moto.url });

function openSink(artefact: string, digest = planDigest(plan)): Promise<S3ShardSink> {
  return createS3ShardSink({
    ...{ target: target(), artefact, planDigest: digest, patience: PATIENCE },
    partBytesFor: () => PART_BYTES,
  });
}

interface Counted extends ShardSink {
  readonly sent: number[];
  readonly completed: string[];
}

/** Counts what goes over the network. */
function counted(sink: ShardSink): Counted {
  const sent: number[] = [];
  const completed: string[] = [];
  return {
    ...sink,
    sent,
    completed,
    async open(file, id, signal) {
      const upload = await sink.open(file, id, signal);
      return {
        ...upload,
        async put(number, bytes) {
          const part = await upload.put(number, bytes);
          sent.push(number);
          return part;
        },
        async complete(parts) {
          await upload.complete(parts);
          completed.push(file);
        },
      };
    },
  };
}

async function send(
  sink: ShardSink,
  workspace: string,
  options: {
    readonly signal?: AbortSignal;
    readonly onProgress?: (bytesDone: number) => void;
  } = {},
): Promise<CompletedShard> {
  const [shard] = plan.shards;
  return mergeShard({
    plan,
    planDigest: planDigest(plan),
    shard: shard!,
    roots: { base: inputs.base, a: inputs.adapter },
    directory: { files: join(workspace, 'files'), journals: join(workspace, 'journals') },
    sink,
    resources: resourcesFor(plan, 2, WINDOW_BYTES),
    kernel: await compileKernel(),
    signal: options.signal,
    onProgress: ({ bytesDone }) => options.onProgress?.(bytesDone),
  });
}

async function digestThere(artefact: string): Promise<string> {
  return s3.call(artefact, undefined, async (client, call) => {
    const Key = `models/${artefact}/${SHARD}`;
    const { Body: body } = await client.send(
      new s3.sdk.GetObjectCommand({ Bucket: BUCKET, Key }),
      call,
    );
    const bytes = await body!.transformToByteArray();
    return createHash('sha256').update(bytes).digest('hex');
  });
}

const numbers = (from: number, to: number): number[] =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index);

test('a shard arrives in parts, and nothing of it is written here', async () => {
  const workspace = await temporaryDirectory();
  const sink = counted(await openSink('whole'));
  expect(await send(sink, workspace)).toEqual(expected);
  expect(await digestThere('whole')).toBe(expected.sha256);
  const last = Math.ceil(expected.size / PART_BYTES);
  expect(sink.sent.toSorted((a, b) => a - b)).toEqual(numbers(1, last));
  expect(await readdir(workspace)).toEqual(['journals']);
  // Asked again, as after a worker that died before it could answer.
  const again = counted(await openSink('whole'));
  expect(await send(again, workspace)).toEqual(expected);
  expect([again.sent, again.completed]).toEqual([[], []]);
});

test('a merge that was stopped goes on after the last part that arrived', async () => {
  const workspace = await temporaryDirectory();
  const first = counted(await openSink('stopped'));
  const controller = new AbortController();
  const stopped = send(first, workspace, {
    signal: controller.signal,
    onProgress: (bytesDone) => {
      if (bytesDone > 0.4 * expected.size) controller.abort(new Error('stopped'));
    },
  });
  await expect(stopped).rejects.toThrow('stopped');
  const second = counted(await openSink('stopped'));
  expect(await send(second, workspace)).toEqual(expected);
  expect(await digestThere('stopped')).toBe(expected.sha256);
  // Also where parts have arrived out of order.
  expect(first.sent.length).toBeGreaterThan(1);
  const last = Math.ceil(expected.size / PART_BYTES);
  expect([...first.sent, ...second.sent].sort((a, b) => a - b)).toEqual(numbers(1, last));
  expect(first.completed).toEqual([]);
});

test('a part that the journal speaks of and the place lost is sent again', async () => {
  const workspace = await temporaryDirectory();
  const first = counted(await openSink('lost'));
  const failing: ShardSink = {
    ...first,
    async open(...options) {
      const upload = await first.open(...options);
      const complete = () => Promise.reject(new Error('before completion'));
      return { ...upload, complete };
    },
  };
  await expect(send(failing, workspace)).rejects.toThrow('before completion');
  const journal = join(workspace, 'journals', `${SHARD}.jsonl`);
  const [line] = (await readFile(journal, 'utf8'))
    .split('\n')
    .filter((each) => /"number":3,/.test(each));
  const other = { ...JSON.parse(line ?? ''), etag: '"another"' };
  await appendFile(journal, `${JSON.stringify(other)}\n`);
  const second = counted(await openSink('lost'));
  expect(await send(second, workspace)).toEqual(expected);
  expect(second.sent).toEqual([3]);
  expect(await digestThere('lost')).toBe(expected.sha256);
});

test('a process that ends right after the last part was made a file finds it whole', async () => {
  const workspace = await temporaryDirectory();
  const first = counted(await openSink('completed'));
  const dying: ShardSink = { ...first, record: () => Promise.reject(new Error('killed')) };
  await expect(send(dying, workspace)).rejects.toThrow('killed');
  expect(first.completed).toEqual([SHARD]);
  const second = counted(await openSink('completed'));
  expect(await send(second, workspace)).toEqual(expected);
  expect([second.sent, second.completed]).toEqual([[], []]);
});

test('what is sent is what publishing finds, without a file here', async () => {
  const workspace = await temporaryDirectory();
  await send(await openSink('published'), workspace);
  const release = join(workspace, 'release.json');
  const manifest = join(root, 'output', 'weldline.json');
  const text = JSON.stringify({
    ...{ format: 'weldline.release', release: 'published', manifestDigest: 'd'.repeat(64) },
    ...{ plan: planDigest(plan), run: { startedAt: '2026-01-01T00:00:00Z' }, kind: 'merged' },
  });
  await appendFile(release, text);
  const publisher = await createS3Publisher(target(), { patience: PATIENCE });
  const published = await publisher.publish(
    {
      ...{ release: 'published', manifestDigest: 'd'.repeat(64), planDigest: planDigest(plan) },
      files: [
        { path: SHARD, ...expected, source: join(workspace, 'nowhere') },
        { path: 'weldline.json', ...(await digestFile(manifest)), source: manifest },
        { path: 'release.json', ...(await digestFile(release)), source: release },
      ],
      description: { kind: 'merged' } as never,
    },
    { signal: new AbortController().signal, onProgress: () => undefined, publishedAt: [] },
  );
  expect(published).toMatchObject({
    existed: false,
    bytesSent: text.length + (await digestFile(manifest)).size,
  });
  // Where nothing is known of it any more, it is what its manifest says.
  const again = counted(await openSink('published'));
  expect(await send(again, await temporaryDirectory())).toEqual(expected);
  expect([again.sent, again.completed]).toEqual([[], []]);
  // Another merge has the name now: nothing of it may go where this one is.
  const other = send(await openSink('published', 'e'.repeat(64)), await temporaryDirectory());
  await expect(other).rejects.toMatchObject({ code: 'publish.conflict' });
  expect(await digestThere('published')).toBe(expected.sha256);
});

test('a part that cannot be sent ends the merge with what the server says', async () => {
  const sink = await createS3ShardSink({
    target: { ...target(), bucket: 'nobody' },
    ...{ artefact: 'x', planDigest: planDigest(plan), patience: PATIENCE },
  });
  await expect(send(sink, await temporaryDirectory())).rejects.toMatchObject({
    code: 'publish.not-found',
  });
  const broken = await openSink('broken');
  const failing: ShardSink = {
    ...broken,
    async open(...options) {
      const upload = await broken.open(...options);
      return { ...upload, put: () => Promise.reject(new Error('the line is dead')) };
    },
  };
  await expect(send(failing, await temporaryDirectory())).rejects.toThrow('the line is dead');
});

test.each([
  [1, 8],
  [80_000 * 1024 ** 2, 8],
  [80_000 * 1024 ** 2 + 1, 9],
])('%i bytes go in parts of %i MiB, at most 10,000', (size, mebibytes) => {
  expect(shardPartBytes(size)).toBe(mebibytes * 1024 ** 2);
  expect(Math.ceil(size / shardPartBytes(size))).toBeLessThanOrEqual(10_000);
});
