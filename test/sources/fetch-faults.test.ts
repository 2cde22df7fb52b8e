import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fetchModel } from '../../sources/fetch-model.ts';
import { blobPaths } from '../../sources/hub-cache.ts';
import { blobName, type HubModel, resolveHubModel } from '../../sources/hub-model.ts';
import type { Fault } from '../hub-server/faults.ts';
import { testBytes } from '../hub-server/test-bytes.ts';
import { startTestHub, type TestHub } from '../hub-server/test-hub.ts';

const RANGE_BYTES = 100_000;
const WEIGHTS = testBytes(500_000);
const TOKENIZER = testBytes(40_000, 3);
const TOKEN = 'hf_secretTokenThatMustNotLeak';
const ALWAYS = Number.POSITIVE_INFINITY;

let hub: TestHub;
let model: HubModel;
beforeEach(async () => {
  const files = { 'model.safetensors': WEIGHTS, 'tokenizer.json': TOKENIZER };
  hub = await startTestHub({ 'acme/tiny': { main: files } });
  model = await resolveHubModel(hub.connection(TOKEN), { repo: 'acme/tiny', revision: 'main' });
});
afterEach(() => hub.close());

function fetchAll() {
  return fetchModel(hub.connection(TOKEN), {
    model,
    files: model.files,
    cacheDirectory: hub.cacheDirectory,
    rangeBytes: RANGE_BYTES,
  });
}

async function expectComplete(directory: string): Promise<void> {
  const weights = await readFile(path.join(directory, 'model.safetensors'));
  expect(Buffer.compare(weights, WEIGHTS)).toBe(0);
  const tokenizer = await readFile(path.join(directory, 'tokenizer.json'));
  expect(Buffer.compare(tokenizer, TOKENIZER)).toBe(0);
}

function weightsPaths() {
  const file = model.files.find(({ path: name }) => name === 'model.safetensors')!;
  return blobPaths(hub.cacheDirectory, model.repo, blobName(file));
}

/** Names in the blob directory that belong to the weights. */
async function weightsFiles(): Promise<string[]> {
  const { blob } = weightsPaths();
  const names = await readdir(path.dirname(blob));
  return names.filter((name) => name.startsWith(path.basename(blob)));
}

describe('fetchModel gets through', () => {
  const faults: Record<string, Fault[]> = {
    'a storage connection that goes silent at 60 %': [
      { kind: 'stall', target: 'storage', afterBytes: 60_000 },
    ],
    'a hub connection that goes silent before the first byte': [
      { kind: 'stall', target: 'resolve', path: /tokenizer/, afterBytes: 0 },
    ],
    'connections that drop in the middle': [
      { kind: 'drop', target: 'storage', afterBytes: 65_536, times: 3 },
      { kind: 'drop', target: 'resolve', path: /tokenizer/, afterBytes: 1 },
    ],
    'a body that ends early in good order': [
      { kind: 'short', target: 'storage', afterBytes: 70_000, times: 2 },
    ],
    'some 5xx': [
      { kind: 'status', target: 'resolve', status: 503, times: 2 },
      { kind: 'status', target: 'storage', status: 500, times: 2 },
    ],
    'a 416 for a range that is there': [{ kind: 'status', target: 'storage', status: 416 }],
    'a 429 with Retry-After': [
      { kind: 'status', target: 'resolve', status: 429, headers: { 'retry-after': '1' } },
    ],
    'a storage link that is refused': [
      { kind: 'status', target: 'storage', status: 403, times: 1 },
    ],
    'one node with another ETag': [{ kind: 'etag', target: 'resolve' }],
    'a slow start': [{ kind: 'slow', target: 'storage', bytesPerSecond: 400_000, times: 2 }],
  };
  it.each(Object.entries(faults))('%s', async (_name, list) => {
    for (const fault of list) hub.inject(fault);
    const { directory } = await fetchAll();
    await expectComplete(directory);
    // What had arrived before a fault is not asked for again.
    expect(hub.contentBytes()).toBeLessThan(WEIGHTS.length + TOKENIZER.length + 3 * RANGE_BYTES);
  });

  it('waits as long as Retry-After says', async () => {
    hub.inject({
      kind: 'status',
      target: 'resolve',
      status: 429,
      headers: { 'retry-after': '1' },
      times: 6,
    });
    const startMs = performance.now();
    await fetchAll();
    expect(performance.now() - startMs).toBeGreaterThan(990);
  });
});

describe('fetchModel gives up', () => {
  it.each([
    ['on a server that stays silent', { kind: 'stall', target: 'storage' }, 'hub.stalled'],
    ['on a server that always drops', { kind: 'drop', target: 'storage' }, 'hub.unavailable'],
    ['on endless 5xx', { kind: 'status', target: 'storage', status: 502 }, 'hub.unavailable'],
    ['on endless 416', { kind: 'status', target: 'storage', status: 416 }, 'hub.file-changed'],
    ['on an ETag that stays different', { kind: 'etag', target: 'resolve' }, 'hub.file-changed'],
    [
      'when told to wait for an hour',
      { kind: 'status', target: 'resolve', status: 429, headers: { 'retry-after': '3600' } },
      'hub.rate-limited',
    ],
  ] as const)('%s', async (_name, fault, code) => {
    hub.inject({ ...fault, times: ALWAYS });
    await expect(fetchAll()).rejects.toMatchObject({ code });
    // Bounded: some tries for each of the five ranges and the other file.
    expect(hub.requests.length).toBeLessThan(80);
    expect(await weightsFiles()).not.toContain(path.basename(weightsPaths().blob));
  });

  it('and keeps the ranges it has', async () => {
    // Three storage requests go well, all others fail.
    hub.inject({ kind: 'slow', target: 'storage', bytesPerSecond: 10_000_000, times: 3 });
    const headers = { 'retry-after': '1' };
    hub.inject({ kind: 'status', target: 'storage', status: 502, headers, times: ALWAYS });
    await expect(fetchAll()).rejects.toMatchObject({ code: 'hub.unavailable' });
    hub.clearFaults();
    hub.requests.length = 0;
    const { directory, bytesReceived } = await fetchAll();
    await expectComplete(directory);
    expect(bytesReceived).toBeLessThanOrEqual(2 * RANGE_BYTES);
  });
});

it('fetchModel takes its part of a small file from a server without ranges', async () => {
  hub.inject({ kind: 'ignore-range', target: 'storage', times: ALWAYS });
  hub.inject({ kind: 'ignore-range', target: 'resolve', times: ALWAYS });
  await expectComplete((await fetchAll()).directory);
});

it('fetchModel does not fetch a large file over and over from a server without ranges', async () => {
  await hub.write('acme/tiny', 'main', 'model.safetensors', testBytes(17 * 1024 * 1024));
  await hub.reload();
  model = await resolveHubModel(hub.connection(), { repo: 'acme/tiny', revision: 'main' });
  hub.inject({ kind: 'ignore-range', target: 'storage', times: ALWAYS });
  await expect(fetchAll()).rejects.toMatchObject({
    code: 'hub.bad-response',
    message: expect.stringContaining('ignores byte ranges'),
  });
});

describe('wrong bytes', () => {
  it.each([
    ['of a file in LFS', 'storage', 'sha256'],
    ['of a file in git', 'resolve', 'git sha1'],
  ] as const)('%s are an error and are removed', async (_name, target, kind) => {
    hub.inject({
      kind: 'corrupt',
      target,
      path: /model|tokenizer/,
      afterBytes: 1234,
      times: target === 'storage' ? 1 : ALWAYS,
    });
    await expect(fetchAll()).rejects.toMatchObject({
      code: 'hub.digest-mismatch',
      message: expect.stringContaining(kind),
    });
    if (target === 'storage') expect(await weightsFiles()).toEqual([]);
    hub.clearFaults();
    const { directory } = await fetchAll();
    await expectComplete(directory);
  });

  it('of an LFS pointer in place of the file are noticed by its size', async () => {
    hub.inject({
      kind: 'status',
      target: 'storage',
      status: 206,
      headers: { 'content-range': 'bytes 0-99999/134' },
      times: ALWAYS,
    });
    await expect(fetchAll()).rejects.toMatchObject({ code: 'hub.file-changed' });
  });
});

describe('the token', () => {
  it('goes to the hub and never to the storage host', async () => {
    await fetchAll();
    const of = (target: string) => hub.requests.filter((request) => request.target === target);
    expect(of('resolve').every(({ authorization }) => authorization === `Bearer ${TOKEN}`)).toBe(
      true,
    );
    expect(of('storage').length).toBeGreaterThan(0);
    expect(of('storage').every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it.each([
    { kind: 'status', target: 'resolve', status: 401 },
    { kind: 'status', target: 'resolve', status: 418 },
    { kind: 'drop', target: 'resolve' },
    { kind: 'stall', target: 'storage' },
    { kind: 'status', target: 'storage', status: 403 },
    {
      kind: 'status',
      target: 'resolve',
      status: 302,
      headers: { location: 'http://u:p@127.0.0.1/' },
    },
  ] as const)('and storage signatures are in no error: $kind $status', async (fault) => {
    hub.inject({ ...fault, times: ALWAYS });
    const error: unknown = await fetchAll().catch((reason: unknown) => reason);
    const shown = `${inspect(error, { depth: 8, showHidden: true })} ${JSON.stringify(error)}`;
    expect(error).toMatchObject({ name: 'WeldlineError' });
    expect(shown).not.toContain(TOKEN);
    expect(shown).not.toContain('signature=');
    expect(shown).not.toContain('u:p@');
  });
});
