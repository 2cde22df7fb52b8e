import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WeldlineError } from '../../engine/errors.ts';
import { openOciPublisher } from '../../publishers/oci/oci-publisher.ts';
import { ociSource } from '../../sources/oci-source.ts';
import { testByteSource } from '../conformance/byte-source.ts';
import { TEST_PATIENCE } from '../conformance/publisher-stage.ts';
import { type FaultyProxy, startFaultyProxy } from '../harness/faulty-proxy.ts';
import {
  REGISTRY_PASSWORD,
  type RegistryServer,
  startRegistry,
  writeDockerConfig,
} from '../harness/registry-server.ts';
import { testArtefact } from '../harness/test-artefact.ts';
import { closeServer, listen, originOf } from '../hub-server/listen.ts';
import { testBytes } from '../hub-server/test-bytes.ts';

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const RAW = 'application/vnd.cncf.model.weight.v1.raw';

let registry: RegistryServer;
let proxy: FaultyProxy;
let host: string;
let directory: string;
let tags = 0;

beforeAll(async () => {
  registry = await startRegistry({ hasPassword: true });
  proxy = await startFaultyProxy(registry.origin);
  host = new URL(proxy.origin).host;
  directory = await mkdtemp(join(tmpdir(), 'weldline-oci-source-'));
  await writeDockerConfig(directory, [host]);
});
afterAll(async () => {
  await proxy?.close();
  await registry?.close();
  await rm(directory, { recursive: true, force: true });
});

function digestOf(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

async function ask(path: string, method: string, body?: Buffer | string, type?: string) {
  const url = path.startsWith('http') ? path : `${registry.origin}/v2/models/own/${path}`;
  const headers = { authorization: registry.authorization, ...(type && { 'content-type': type }) };
  const response = await fetch(url, { method, headers, ...(body !== undefined && { body }) });
  expect(response.ok, `${method} ${path} ${response.status}`).toBe(true);
  return response;
}

async function pushBlob(bytes: Buffer): Promise<{ digest: string; size: number }> {
  const digest = digestOf(bytes);
  const begun = await ask('blobs/uploads/', 'POST');
  const location = begun.headers.get('location');
  await ask(`${location}&digest=${digest}`, 'PUT', bytes, 'application/octet-stream');
  return { digest, size: bytes.length };
}

interface Layer {
  readonly mediaType?: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Pushes a manifest as another client may, and gives its URI. */
async function pushModel(layers: readonly Layer[], more: object = {}): Promise<string> {
  const empty = await pushBlob(Buffer.from('{}'));
  const manifest = {
    ...{ schemaVersion: 2, mediaType: MANIFEST_TYPE },
    config: { mediaType: 'application/vnd.oci.empty.v1+json', ...empty },
    layers: layers.map((layer) => ({ mediaType: RAW, ...layer })),
    ...more,
  };
  const tag = `t${tags++}`;
  const { mediaType } = manifest;
  await ask(`manifests/${tag}`, 'PUT', JSON.stringify(manifest), mediaType);
  return `oci://${host}/models/own:${tag}`;
}

const titled = (title: string) => ({ annotations: { 'org.opencontainers.image.title': title } });
const source = () => ociSource(directory, TEST_PATIENCE);

async function errorOf(work: Promise<unknown>): Promise<WeldlineError> {
  const error = await work.then(
    () => new Error('did not fail'),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(WeldlineError);
  expect(String((error as Error).stack)).not.toContain(REGISTRY_PASSWORD);
  return error as WeldlineError;
}

testByteSource('a layer in a registry', async (content) => {
  const uri = await pushModel([{ ...(await pushBlob(content)), ...titled('model.safetensors') }]);
  const model = await source().resolve(uri);
  return { source: source().open(model, model.files[0]!) };
});

describe('a model in a registry', () => {
  it('is what weldline published there', async () => {
    const artefact = await testArtefact(directory, { release: 'merged-tiny-1' });
    const target = { repository: `${host}/models/tiny` };
    const publisher = openOciPublisher(target, directory, TEST_PATIENCE);
    const signal = new AbortController().signal;
    const options = { signal, onProgress: () => undefined, publishedAt: [] };
    const { location, pinned } = await publisher.publish(artefact, options);
    const model = await source().resolve(location);
    expect(model.pin).toBe(pinned.split('sha256:')[1]);
    expect(await source().resolve(pinned)).toEqual({ ...model, uri: pinned });
    const files = artefact.files.map(({ path, size, sha256 }) => ({ path, size, sha256 }));
    expect(model.files.map(({ version, ...file }) => file)).toEqual(
      files.sort((a, b) => (a.path < b.path ? -1 : 1)),
    );
  });

  it('is read on where a connection breaks', async () => {
    const content = testBytes(300_000);
    const uri = await pushModel([{ ...(await pushBlob(content)), ...titled('a') }]);
    const model = await source().resolve(uri);
    const opened = source().open(model, model.files[0]!);
    for (const kind of ['drop-answer', 'status'] as const) {
      proxy.clear();
      proxy.fail({ kind, path: /blobs/, times: 2 });
      expect(Buffer.compare(await opened.read(0, 300_000), content)).toBe(0);
    }
    proxy.fail({ kind: 'status', status: 503, path: /blobs/, times: Infinity });
    expect((await errorOf(opened.read(0, 10))).code).toBe('source.unavailable');
    proxy.clear();
  });

  it.each([
    [401, 'source.unauthorized'],
    [403, 'source.unauthorized'],
    [429, 'source.unavailable'],
    [500, 'source.unavailable'],
  ])('cannot be had: %i', async (status, code) => {
    proxy.fail({ kind: 'status', status, times: Infinity });
    const error = await errorOf(source().resolve(`oci://${host}/models/own:t0`));
    expect(error.code).toBe(code);
    expect(error.message).toContain('models/own');
    proxy.clear();
  });

  it.each([
    ['a tag', 'models/own:none'],
    ['a repository', 'models/none:1'],
    ['a digest', `models/own@sha256:${'0'.repeat(64)}`],
  ])('is not there: %s', async (_, name) => {
    const error = await errorOf(source().resolve(`oci://${host}/${name}`));
    expect(error.code).toBe('source.not-found');
    expect(error.message).toContain(name);
  });

  it('needs credentials', async () => {
    const stranger = ociSource(join(directory, 'nowhere'), TEST_PATIENCE);
    const error = await errorOf(stranger.resolve(`oci://${host}/models/own:t0`));
    expect(error.code).toBe('source.unauthorized');
  });
});

describe('a manifest of somebody else', () => {
  it.each([
    '../escape',
    'a/../../escape',
    '/etc/passwd',
    'a//b',
    'a\\..\\b',
    './a',
    'nul\u0000',
    'x'.repeat(2000),
  ])('cannot lead out of a directory: %j', async (path) => {
    const blob = await pushBlob(Buffer.from('x'));
    for (const key of ['org.cncf.model.filepath', 'org.opencontainers.image.title']) {
      const uri = await pushModel([{ ...blob, annotations: { [key]: path } }]);
      const error = await errorOf(source().resolve(uri));
      expect(error.code).toBe('source.invalid-reference');
      expect(error.message.length).toBeLessThan(600);
    }
  });

  it('is no model without paths, and names no path twice', async () => {
    const blob = await pushBlob(Buffer.from('x'));
    const nameless = await errorOf(source().resolve(await pushModel([blob])));
    expect(nameless.message).toContain('no layer with the path');
    const twice = [
      { ...blob, ...titled('a') },
      { ...blob, ...titled('a') },
    ];
    const double = await errorOf(source().resolve(await pushModel(twice)));
    expect(double.message).toContain('two files "a"');
  });

  it.each([
    { mediaType: 'application/vnd.cncf.model.weight.v1.tar', ...titled('model') },
    { mediaType: 'application/vnd.cncf.model.weight.v1.tar+gzip', ...titled('model') },
    {
      annotations: {
        'org.opencontainers.image.title': 'dir',
        'io.deis.oras.content.unpack': 'true',
      },
    },
  ])('with packed layers says how to push it: %j', async (layer) => {
    const blob = await pushBlob(Buffer.from('x'));
    const error = await errorOf(source().resolve(await pushModel([{ ...blob, ...layer }])));
    expect(error.code).toBe('source.invalid-reference');
    expect(error.message).toContain('--raw');
  });

  it('with a wrong size is found when it is read', async () => {
    const { digest } = await pushBlob(testBytes(1000));
    for (const size of [999, 2000]) {
      const uri = await pushModel([{ digest, size, ...titled('a') }]);
      const model = await source().resolve(uri);
      const opened = source().open(model, model.files[0]!);
      const error = await errorOf(opened.read(0, size));
      expect(error.code).toBe('source.changed');
    }
  });

  it('is not an index', async () => {
    const type = 'application/vnd.oci.image.index.v1+json';
    const index = JSON.stringify({ schemaVersion: 2, mediaType: type, manifests: [] });
    await ask('manifests/index', 'PUT', index, type);
    const error = await errorOf(source().resolve(`oci://${host}/models/own:index`));
    expect(error.code).toBe('source.invalid-reference');
    expect(error.message).toContain('index');
  });
});

describe('a registry that lies', () => {
  async function resolveFrom(body: string, version: string): Promise<WeldlineError> {
    const server = await listen(0, (_, response) => {
      response.writeHead(200, { 'content-type': MANIFEST_TYPE }).end(body);
    });
    try {
      const place = new URL(originOf(server)).host;
      return await errorOf(source().resolve(`oci://${place}/a/b${version}`));
    } finally {
      await closeServer(server);
    }
  }
  const layer = { mediaType: RAW, digest: digestOf('x'), size: 1, ...titled('a') };
  const sound = { schemaVersion: 2, config: layer, layers: [layer] };

  it('sends another manifest than was asked for by its digest', async () => {
    const error = await resolveFrom(JSON.stringify(sound), `@sha256:${'1'.repeat(64)}`);
    expect(error.code).toBe('source.unavailable');
    expect(error.message).toContain('another manifest');
  });

  it.each([
    ['no JSON', '<html>'],
    ['no object', '[]'],
    ['no layers', JSON.stringify({ ...sound, layers: undefined })],
    ['a negative size', JSON.stringify({ ...sound, layers: [{ ...layer, size: -1 }] })],
    ['a fraction', JSON.stringify({ ...sound, layers: [{ ...layer, size: 0.5 }] })],
    ['another digest', JSON.stringify({ ...sound, layers: [{ ...layer, digest: 'md5:12' }] })],
    [
      'a number for a path',
      JSON.stringify({ ...sound, layers: [{ ...layer, annotations: { a: 1 } }] }),
    ],
    ['the first version', JSON.stringify({ ...sound, schemaVersion: 1 })],
  ])('sends %s', async (_, body) => {
    expect((await resolveFrom(body, ':1')).code).toBe('source.invalid-reference');
  });

  it('sends a manifest without end', async () => {
    const error = await resolveFrom(' '.repeat(5 * 1024 * 1024), ':1');
    expect(error.message).toContain('without end');
  });
});
