import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Patience } from '../../remote/patience.ts';
import { httpSource } from '../../sources/http-source.ts';
import type { RemoteModel } from '../../sources/remote-source.ts';
import { testByteSource } from '../conformance/byte-source.ts';
import { startWebServer, type WebServer, type WebServerOptions } from '../harness/web-server.ts';
import { testBytes } from '../hub-server/test-bytes.ts';

const PATIENCE: Patience = {
  attemptsMax: 3,
  backoffMs: 5,
  stallTimeoutMs: 10_000,
  retryAfterMaxMs: 1_000,
};
const WEIGHTS = testBytes(500_000);

let root: string;
let server: WebServer;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-web-'));
});
afterEach(async () => {
  await server.close();
  await rm(root, { recursive: true, force: true });
});

async function serve(
  files: Readonly<Record<string, Buffer | string>>,
  options: Omit<WebServerOptions, 'root'> = {},
): Promise<string> {
  await mkdir(join(root, 'model'), { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(root, 'model', name), content);
  }
  server = await startWebServer({ root, ...options });
  return `${server.origin}/model`;
}

const source = httpSource(PATIENCE);
/** Such as notices soon that nothing moves, and is not discouraged by a busy machine. */
const impatient = httpSource({ ...PATIENCE, stallTimeoutMs: 300, attemptsMax: 20 });
const pathsOf = (model: RemoteModel) => model.files.map(({ path }) => path);

async function openOnly(name: string, content: Buffer, options?: Omit<WebServerOptions, 'root'>) {
  const model = await source.resolve(await serve({ [name]: content }, options));
  return source.open(model, model.files[0]!);
}

testByteSource('httpSource', async (content) => ({
  source: await openOnly('model.safetensors', content),
}));

describe('finding a model', () => {
  it('tries the names that models have, and those that an index names', async () => {
    const uri = await serve({
      'config.json': '{}',
      'tokenizer.json': '{}',
      'unheard-of.txt': 'x',
      'part one.safetensors': WEIGHTS,
      'model.safetensors.index.json': JSON.stringify({
        weight_map: { a: 'part one.safetensors', b: '../outside', c: 'missing.safetensors' },
      }),
    });
    const model = await source.resolve(uri);
    expect(model).toMatchObject({
      kind: 'http',
      uri,
      pin: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    expect(pathsOf(model)).toEqual([
      'config.json',
      'model.safetensors.index.json',
      'part one.safetensors',
      'tokenizer.json',
    ]);
    expect(server.requests.some(({ path }) => path.includes('outside'))).toBe(false);
    expect((await source.resolve(uri)).pin).toBe(model.pin);
    await writeFile(join(root, 'model', 'config.json'), '{ }');
    expect((await source.resolve(uri)).pin).not.toBe(model.pin);
  });

  it('tells models at two addresses apart, though their servers give them the same versions', async () => {
    for (const versions of ['none', 'modified', 'etag'] as const) {
      const uri = await serve({ 'config.json': '{"a":1}' }, { versions });
      await mkdir(join(root, 'other'), { recursive: true });
      await writeFile(join(root, 'other', 'config.json'), '{"a":2}');
      // As images of containers have it.
      for (const name of ['model', 'other']) await utimes(join(root, name, 'config.json'), 1, 1);
      const [one, other] = [await source.resolve(uri), await source.resolve(`${uri}/../other`)];
      expect(other.pin, versions).not.toBe(one.pin);
      await server.close();
    }
    server = await startWebServer({ root });
  });

  it('asks for the first byte where HEAD is not answered', async () => {
    const uri = await serve({ 'config.json': '{}', 'README.md': '' }, { headStatus: 405 });
    const { files } = await source.resolve(uri);
    expect(files).toMatchObject([
      { path: 'README.md', size: 0 },
      { path: 'config.json', size: 2 },
    ]);
  });

  it('does not take the page of an application for a file', async () => {
    const uri = await serve({ 'config.json': '{}' }, { fallbackPage: true });
    expect(pathsOf(await source.resolve(uri))).toEqual(['config.json']);
  });

  it('follows redirects', async () => {
    const uri = await serve({ 'config.json': '{}' });
    const moving = await startWebServer({ root, moveTo: uri });
    try {
      const model = await source.resolve(`${moving.origin}/moved`);
      const file = source.open(model, model.files[0]!);
      expect(Buffer.from(await file.read(0, 2)).toString()).toBe('{}');
    } finally {
      await moving.close();
    }
  });

  it.each([
    [{}, 'source.not-found', 'has no file that a model has'],
    [{ headStatus: 401 }, 'source.unauthorized', '401'],
    [{ headStatus: 403 }, 'source.unauthorized', 'sends no credentials'],
    [{ headStatus: 503 }, 'source.unavailable', '503'],
  ])('says what is wrong with %j', async (options, code, message) => {
    const uri = await serve({}, options);
    await expect(source.resolve(uri)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
  });
});

describe('reading a file', () => {
  it.each([
    [{ kind: 'drop', afterBytes: 200_000 } as const],
    [{ kind: 'short', afterBytes: 200_000 } as const],
    [{ kind: 'status', status: 503 } as const],
    [{ kind: 'status', status: 429, headers: { 'retry-after': '0' } } as const],
    [{ kind: 'ignore-range' } as const],
  ])('gets all bytes in spite of %j', async (fault) => {
    const file = await openOnly('model.safetensors', WEIGHTS);
    server.inject(fault);
    const bytes = await file.read(1, WEIGHTS.length - 1);
    expect(Buffer.compare(bytes, WEIGHTS.subarray(1))).toBe(0);
    // What had arrived is not asked for again.
    expect(server.bytesSent()).toBeLessThan(WEIGHTS.length * 1.5 + 64 * 1024);
  });

  it('gets all bytes from a server that goes silent', async () => {
    const model = await source.resolve(await serve({ 'model.safetensors': WEIGHTS }));
    server.inject({ kind: 'stall', afterBytes: 200_000 });
    const bytes = await impatient.open(model, model.files[0]!).read(0, WEIGHTS.length);
    expect(Buffer.compare(bytes, WEIGHTS)).toBe(0);
  });

  it('gives up after some failures', async () => {
    const file = await openOnly('model.safetensors', WEIGHTS);
    server.inject({ kind: 'drop', afterBytes: 10, times: 100 });
    await expect(file.read(0, 100)).rejects.toMatchObject({ code: 'source.unavailable' });
    expect(server.requests.filter(({ method }) => method === 'GET')).toHaveLength(3);
  });

  it('refuses a large file from a server without ranges', async () => {
    const file = await openOnly('model.safetensors', Buffer.alloc(17 * 1024 * 1024));
    server.inject({ kind: 'ignore-range' });
    await expect(file.read(0, 8)).rejects.toMatchObject({
      code: 'source.unavailable',
      message: expect.stringContaining('ignores byte ranges'),
    });
  });

  it('stops when it is closed', async () => {
    const file = await openOnly('model.safetensors', WEIGHTS);
    server.inject({ kind: 'stall', afterBytes: 10 });
    const read = file.read(0, 1000);
    await file.close();
    await expect(read).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('notices another version that a server offers without being asked by version', async () => {
    const file = await openOnly('model.safetensors', WEIGHTS);
    server.inject({ kind: 'etag' });
    await expect(file.read(0, 8)).rejects.toMatchObject({ code: 'source.changed' });
  });

  it.each(['etag', 'modified', 'none'] as const)(
    'notices a file that changed, by %s',
    async (by) => {
      const file = await openOnly('model.safetensors', WEIGHTS, { versions: by });
      const path = join(root, 'model', 'model.safetensors');
      await writeFile(path, by === 'none' ? WEIGHTS.subarray(1) : testBytes(WEIGHTS.length, 1));
      await utimes(path, new Date(0), new Date(0));
      await expect(file.read(0, 8)).rejects.toMatchObject({
        code: 'source.changed',
        message: expect.stringContaining('model.safetensors'),
      });
    },
  );
});
