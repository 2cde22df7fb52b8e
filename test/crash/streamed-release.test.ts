/** A merge that has neither room for its base nor for its output: both are streamed. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { BLOCK_BYTES } from '../../engine/merge/block-reader.ts';
import { shardPartBytes } from '../../publishers/s3/shard-sink.ts';
import { connectS3, type S3Connection } from '../../remote/s3-connection.ts';
import { type Directories, mergeDirectories, readFiles } from '../doubles/merge-directories.ts';
import { type FaultyProxy, startFaultyProxy } from '../harness/faulty-proxy.ts';
import { MOTO_VARIABLES, type MotoServer, startMoto } from '../harness/moto-server.ts';
import { waitFor } from '../harness/wait-for.ts';
import { startTestHub, type TestHub } from '../hub-server/test-hub.ts';
import { writeLargeModel } from './large-model.ts';
import type { StreamedReport } from './streamed-child.ts';

const CHILD = fileURLToPath(new URL('./streamed-child.ts', import.meta.url));
const BUCKET = 'small-disk';
const MIB = 1024 * 1024;
/** Of which weldline wants 16 MiB to be free for small files. */
const DISK_BYTES = 24 * MIB;
/** Budget of two threads with the least of blocks and parts, and what of it is there before a merge begins. */
const MEMORY_BYTES = 280_000_000;
const PROCESS_BYTES = 95_000_000;
/** What threads take more in a checkout, where each compiles types: 15 MB were measured. */
const CHECKOUT_BYTES = 20_000_000;
const PART_BYTES = shardPartBytes(0);
const TIMEOUT_MS = 120_000;

let root: string;
let moto: MotoServer;
let proxy: FaultyProxy;
let hub: TestHub;
let s3: S3Connection;
let inputs: Directories;
let expected: ReadonlyMap<string, Buffer>;

beforeAll(async () => {
  Object.assign(process.env, MOTO_VARIABLES);
  root = await mkdtemp(join(tmpdir(), 'weldline-streamed-'));
  inputs = await writeLargeModel(root, { tensors: 6, shards: 2 });
  const base = Object.fromEntries(await readFiles(inputs.base));
  hub = await startTestHub({ 'org/large': { main: base } });
  moto = await startMoto();
  proxy = await startFaultyProxy(moto.url);
  s3 = await connectS3({
    ...{ bucket: BUCKET, endpoint: moto.url, side: 'publish' },
    patience: { attemptsMax: 2, backoffMs: 1, stallTimeoutMs: 10_000, retryAfterMaxMs: 1000 },
  });
  await s3.call('bucket', undefined, (client, call) =>
    client.send(new s3.sdk.CreateBucketCommand({ Bucket: BUCKET }), call),
  );
  const output = join(root, 'output');
  await mergeDirectories({ ...inputs, output, threads: 2 });
  expected = await readFiles(output);
}, TIMEOUT_MS);

afterAll(async () => {
  s3?.close();
  await proxy?.close();
  await hub?.close();
  await moto?.stop();
  await rm(root, { recursive: true, force: true });
});

/**
 * Releases with a home of `DISK_BYTES`, which lasts as long as this runs.
 * @param onStart gets the process id of each attempt
 * @param attempts how often to start, one after the other
 */
async function release(
  base: string,
  version: string,
  attempts: number,
  onStart: (pid: number) => Promise<void> = async () => undefined,
): Promise<StreamedReport> {
  const disk = join(root, 'disk');
  await mkdir(disk, { recursive: true });
  const recipe = join(root, 'recipe.yaml');
  await writeFile(
    recipe,
    `name: large\nversion: ${version}\nbase: { model: ${base}, fetch: stream }\n` +
      `adapters: [{ id: a, model: ${JSON.stringify(inputs.adapter)} }]\n` +
      `publish: [{ s3: { bucket: ${BUCKET}, stream: true } }]\n`,
  );
  const mount = `mount -t tmpfs -o size=${DISK_BYTES} weldline-test "$1"`;
  const run = Array.from({ length: attempts }, () => '"$2" "$3" "$4"').join('; ');
  const script = ['sh', '-c', `${mount} && { ${run}; }`, 'sh'];
  const command = ['--mount', ...script, disk, process.execPath, CHILD, recipe];
  const child = spawn('unshare', command, {
    // A group of its own, to be ended as a whole where a test fails.
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env,
      ...{ WELDLINE_HOME: disk, HF_HOME: join(disk, 'hub'), WELDLINE_THREADS: '2' },
      ...{ WELDLINE_MEMORY_BUDGET: `${MEMORY_BYTES}B` },
      ...{ HF_ENDPOINT: hub.endpoint, AWS_ENDPOINT_URL_S3: proxy.origin },
    },
  });
  onTestFinished(() => {
    if (child.exitCode === null) process.kill(-child.pid!, 'SIGKILL');
  });
  const exit = new Promise<number | null>((resolve) => child.on('close', resolve));
  let last: unknown;
  for await (const line of createInterface({ input: child.stdout })) {
    last = JSON.parse(line);
    const { pid } = last as { readonly pid?: number };
    if (pid !== undefined) await onStart(pid);
  }
  expect(await exit).toBe(0);
  return last as StreamedReport;
}

const weights = () => [...expected].filter(([name]) => name.endsWith('.safetensors'));
const modelBytes = () => weights().reduce((sum, [, { length }]) => sum + length, 0);
const digestOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

async function objectAt(key: string): Promise<Uint8Array> {
  return s3.call(key, undefined, async (client, call) => {
    const command = new s3.sdk.GetObjectCommand({ Bucket: BUCKET, Key: key });
    return (await client.send(command, call)).Body!.transformToByteArray();
  });
}

async function expectMerged(report: StreamedReport): Promise<void> {
  expect(modelBytes()).toBeGreaterThan(2 * DISK_BYTES - 2 * MIB);
  expect(report.diskBytesPeak).toBeLessThan(2 * MIB);
  for (const [index, [file, bytes]] of weights().entries()) {
    expect(report.shards[index]).toEqual({ size: bytes.length, sha256: digestOf(bytes) });
    expect(digestOf(await objectAt(`${report.artefact}/${file}`)), file).toBe(digestOf(bytes));
  }
  expect(report.memoryBytesPeak - report.memoryBytesBefore).toBeLessThan(
    MEMORY_BYTES - PROCESS_BYTES + CHECKOUT_BYTES,
  );
  expect(report.rowsRecomputed).toBeGreaterThan(10);
}

/** Numbers of the parts of a shard that were sent and answered. */
const partsSent = (shard: number): number[] =>
  proxy.requests
    .filter(
      ({ method, path, status }) =>
        method === 'PUT' && status === 200 && path.includes(`-0000${shard}-of-`),
    )
    .map(({ path }) => Number(/partNumber=(\d+)/.exec(path)?.[1]))
    .sort((a, b) => a - b);

/** Of the first shard, as a process has them on a disk that only it sees. */
async function journalledParts(pid: number): Promise<readonly number[]> {
  const merges = join(`/proc/${pid}/root`, root, 'disk', 'merges');
  const names = await readdir(merges, { recursive: true });
  const journal = names.find((name) => name.endsWith('-00001-of-00002.safetensors.jsonl'));
  if (journal === undefined) return [];
  const text = await readFile(join(merges, journal), 'utf8');
  return [...text.matchAll(/"number":(\d+),/g)].map(([, number]) => Number(number));
}

test(
  'a base and an output that are larger than the disk: killed on the way, and gone on with',
  async () => {
    // A part that never arrives holds the first attempt up where it shall be killed.
    proxy.fail({ kind: 'stall', method: /PUT/, path: /-00001-of-.*partNumber=3/ });
    let readBefore = 0;
    const report = await release('hf://org/large', '1.0.0', 2, async (pid) => {
      if (readBefore > 0) return;
      await waitFor('a part that stalls behind two that arrived', async () => {
        const isStalled = proxy.requests.some(({ fault }) => fault === 'stall');
        const journalled = isStalled ? await journalledParts(pid) : [];
        return journalled.includes(1) && journalled.includes(2) ? true : undefined;
      });
      process.kill(pid, 'SIGKILL');
      readBefore = hub.contentBytes();
      proxy.clear();
    });
    await expectMerged(report);
    expect(partsSent(1)[0]).toBe(3);
    const [first = 0, second = 0] = weights().map(([, { length }]) => length);
    // Behind the third part of the first shard there is a short fourth, which may have arrived, or be on
    // its way when its process is killed and be sent again.
    const fourth = first - 3 * PART_BYTES;
    const left = first - 2 * PART_BYTES + second;
    // What was sent is neither sent nor read again, but for the rest of a block and sampled rows.
    const sent = proxy.uploadedBytes(/PUT .*partNumber/);
    expect(fourth).toBeLessThan(1000);
    expect(left - sent).toBeGreaterThanOrEqual(-fourth);
    expect(left - sent).toBeLessThan(MIB);
    expect(hub.contentBytes() - readBefore).toBeLessThan(left + BLOCK_BYTES + MIB);
  },
  TIMEOUT_MS,
);

test(
  'the same from a bucket, which knows no digests: its files are read for them, and not stored',
  async () => {
    for (const [name, bytes] of await readFiles(inputs.base)) {
      await s3.call(name, undefined, (client, call) =>
        client.send(
          new s3.sdk.PutObjectCommand({ Bucket: BUCKET, Key: `bases/large/${name}`, Body: bytes }),
          call,
        ),
      );
    }
    await expectMerged(await release(`s3://${BUCKET}/bases/large`, '2.0.0', 1));
  },
  TIMEOUT_MS,
);
