import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { snapshotDirectory } from '../../sources/hub-cache.ts';
import { testBytes } from '../hub-server/test-bytes.ts';
import { startTestHub, type TestHub } from '../hub-server/test-hub.ts';

const CONNECTIONS = 8;
const RANGE_BYTES = 128 * 1024;
const LARGE = testBytes(6_000_001);
const SMALL = testBytes(700_000, 2);

let hub: TestHub;
beforeEach(async () => {
  const files = {
    'model-00001-of-00002.safetensors': LARGE,
    'model-00002-of-00002.safetensors': SMALL,
  };
  // Slow enough that a process can be killed in the middle.
  hub = await startTestHub({ 'acme/tiny': { main: files } }, { bytesPerSecond: 400_000 });
});
afterEach(() => hub.close());

function startFetch(): ChildProcess {
  const script = path.join(import.meta.dirname, 'fetch-process.ts');
  const operands = [hub.endpoint, 'acme/tiny', hub.cacheDirectory, String(RANGE_BYTES)];
  return spawn(process.execPath, [script, ...operands], { stdio: ['ignore', 'pipe', 'inherit'] });
}

async function killAfter(bytes: number): Promise<void> {
  const child = startFetch();
  const before = hub.contentBytes();
  while (hub.contentBytes() - before < bytes) {
    expect(child.exitCode).toBeNull();
    await sleep(20);
  }
  child.kill('SIGKILL');
  await once(child, 'exit');
}

async function finish(): Promise<number> {
  const child = startFetch();
  const output: Buffer[] = [];
  child.stdout!.on('data', (chunk: Buffer) => output.push(chunk));
  const [code] = await once(child, 'close');
  expect(code).toBe(0);
  return JSON.parse(Buffer.concat(output).toString()).bytesReceived;
}

async function expectComplete(): Promise<void> {
  const snapshot = snapshotDirectory(
    hub.cacheDirectory,
    'acme/tiny',
    hub.commitOf('acme/tiny', 'main'),
  );
  const large = await readFile(path.join(snapshot, 'model-00001-of-00002.safetensors'));
  expect(Buffer.compare(large, LARGE)).toBe(0);
  const small = await readFile(path.join(snapshot, 'model-00002-of-00002.safetensors'));
  expect(Buffer.compare(small, SMALL)).toBe(0);
}

describe('a download that was killed', () => {
  it('goes on where it was, losing at most a range of each connection', async () => {
    await killAfter(3_500_000);
    const sentBefore = hub.contentBytes();
    const received = await finish();
    await expectComplete();
    const total = LARGE.length + SMALL.length;
    // What the second process had to fetch is all but what the first had completed.
    expect(received).toBeLessThan(total);
    expect(sentBefore + received - total).toBeLessThanOrEqual(CONNECTIONS * RANGE_BYTES);
  });

  it('survives being killed again and again', async () => {
    let kills = 0;
    for (; kills < 4; kills += 1) await killAfter(1_200_000);
    await finish();
    await expectComplete();
    const repeated = hub.contentBytes() - LARGE.length - SMALL.length;
    expect(repeated).toBeLessThanOrEqual(kills * CONNECTIONS * RANGE_BYTES);
  });

  it('is not in the way of another process that downloads the same', async () => {
    const children = [startFetch(), startFetch()];
    const codes = await Promise.all(children.map(async (child) => (await once(child, 'exit'))[0]));
    expect(codes).toEqual([0, 0]);
    await expectComplete();
    expect(hub.contentBytes()).toBe(LARGE.length + SMALL.length);
  });
});
