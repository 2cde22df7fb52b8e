import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fetchRemote, remoteBytesAbsent } from '../../sources/fetch-remote.ts';
import { FileDigests } from '../../sources/file-digests.ts';
import { httpSource } from '../../sources/http-source.ts';
import {
  fetchToDisk,
  identityOf,
  type ModelAccess,
  resolveModel,
} from '../../sources/model-input.ts';
import { openInput } from '../../sources/open-input.ts';
import type { RemoteModel, RemoteSource } from '../../sources/remote-source.ts';
import { startWebServer, type WebServer } from '../harness/web-server.ts';
import { testBytes } from '../hub-server/test-bytes.ts';

const WEIGHTS = testBytes(1_000_000);
const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

let root: string;
let models: string;
let server: WebServer;
let uri: string;
const source = httpSource({
  attemptsMax: 2,
  backoffMs: 5,
  stallTimeoutMs: 10_000,
  retryAfterMaxMs: 100,
});

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-remote-'));
  models = join(root, 'home', 'models');
  await mkdir(join(root, 'model'));
  await writeFile(join(root, 'model', 'config.json'), '{}');
  await writeFile(join(root, 'model', 'model.safetensors'), WEIGHTS);
  server = await startWebServer({ root });
  uri = `${server.origin}/model`;
});
afterEach(async () => {
  await server.close();
  await rm(root, { recursive: true, force: true });
});

const fetchAll = (model: RemoteModel, from: RemoteSource = source) =>
  fetchRemote(from, model, models, { rangeBytes: 100_000, connectionsMax: 2 });

describe('fetchRemote', () => {
  it('brings all files under their pin, once', async () => {
    const model = await source.resolve(uri);
    expect(await remoteBytesAbsent(model, models)).toBe(WEIGHTS.length + 2);
    const fetched = await fetchAll(model);
    expect(fetched).toEqual({
      directory: join(models, 'http', model.pin, 'files'),
      bytesTotal: WEIGHTS.length + 2,
      bytesReceived: WEIGHTS.length + 2,
    });
    expect(await readdir(fetched.directory)).toEqual(['config.json', 'model.safetensors']);
    const weights = await readFile(join(fetched.directory, 'model.safetensors'));
    expect(Buffer.compare(weights, WEIGHTS)).toBe(0);
    expect(await remoteBytesAbsent(model, models)).toBe(0);
    expect(await fetchAll(model)).toMatchObject({ bytesReceived: 0 });
  });

  it('goes on where it stopped', async () => {
    const model = await source.resolve(uri);
    server.requests.length = 0;
    const failing = { kind: 'status', status: 500, path: /safetensors/, times: 100 } as const;
    server.inject({ kind: 'slow', path: /safetensors/, times: 4, bytesPerSecond: 1e9 });
    server.inject(failing);
    await expect(fetchAll(model)).rejects.toMatchObject({ code: 'source.unavailable' });
    const before = server.bytesSent();
    expect(before).toBeGreaterThanOrEqual(300_000);
    await server.close();
    // Another address is another model: the same one again.
    server = await startWebServer({ root });
    const moved: RemoteSource = {
      ...source,
      open: (given, file) => source.open({ ...given, uri: `${server.origin}/model` }, file),
    };
    const { bytesReceived } = await fetchAll(model, moved);
    expect(bytesReceived).toBeLessThanOrEqual(WEIGHTS.length + 2 - 300_000);
  });

  it('takes nothing that changed since it was pinned', async () => {
    const model = await source.resolve(uri);
    await writeFile(join(root, 'model', 'model.safetensors'), testBytes(WEIGHTS.length, 1));
    await expect(fetchAll(model)).rejects.toMatchObject({ code: 'source.changed' });
    const place = join(models, 'http', model.pin, 'files');
    expect(await readdir(place)).not.toContain('model.safetensors');
  });

  it('removes what is not what its place says', async () => {
    const model = await source.resolve(uri);
    const pinned = (digest: string) => ({
      ...model,
      files: model.files.slice(1).map((file) => ({ ...file, sha256: digest })),
    });
    await expect(fetchAll(pinned('0'.repeat(64)))).rejects.toMatchObject({
      code: 'source.digest-mismatch',
      message: expect.stringContaining('It was removed'),
    });
    const place = join(models, 'http', model.pin);
    expect(await readdir(join(place, 'files'))).toEqual([]);
    expect(await readdir(join(place, 'state'))).toEqual([]);
    const { bytesReceived } = await fetchAll(pinned(sha256(WEIGHTS)));
    expect(bytesReceived).toBe(WEIGHTS.length);
  });

  it('fetches again what was changed here', async () => {
    const model = await source.resolve(uri);
    const { directory } = await fetchAll(model);
    await writeFile(join(directory, 'config.json'), '{"a": 1}'.slice(0, 2));
    await fetchAll(model);
    expect(await readFile(join(directory, 'config.json'), 'utf8')).toBe('{}');
  });
});

describe('a model at a URL as an input', () => {
  const access = (): ModelAccess => ({
    hub: { endpoint: 'http://127.0.0.1:9' },
    cacheDirectory: join(root, 'hub'),
    modelsDirectory: models,
    digests: new FileDigests(join(root, 'digests.json')),
    remote: async () => source,
  });

  it('is read for its digests without being stored, once', async () => {
    const model = await resolveModel(access(), { model: uri, role: 'base' });
    const first = access();
    let bytesRead = 0;
    const onBytes = (count: number) => {
      bytesRead += count;
    };
    const input = await openInput(first, model, { onBytes });
    expect(await input.known('model.safetensors')).toBeUndefined();
    expect(await input.digest('model.safetensors')).toBe(sha256(WEIGHTS));
    expect(bytesRead).toBe(WEIGHTS.length);
    await first.digests.save();
    const again = await openInput(access(), model);
    expect(await again.known('model.safetensors')).toBe(sha256(WEIGHTS));
    expect(await readdir(root)).toEqual(['digests.json', 'model']);
  });

  it('has the same digests when it was fetched', async () => {
    const model = await resolveModel(access(), { model: uri, role: 'base' });
    expect(identityOf(model)).toMatch(/^[0-9a-f]{64}$/);
    const directory = await fetchToDisk(access(), model, {});
    const input = await openInput(access(), model, { directory });
    expect(await input.digest('model.safetensors')).toBe(sha256(WEIGHTS));
  });
});
