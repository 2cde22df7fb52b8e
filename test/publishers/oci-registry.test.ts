/** What is peculiar to registries; the rest is in the conformance suite. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openOciPublisher } from '../../publishers/oci/oci-publisher.ts';
import { aliasTagOf, tagOf } from '../../publishers/oci/tags.ts';
import type { Artefact, Published, Publisher } from '../../publishers/publisher.ts';
import { MANIFEST_TYPE } from '../../remote/oci/manifest.ts';
import { getManifest, putManifest } from '../../remote/oci/manifests.ts';
import { parseOciUri, parsePlace } from '../../remote/oci/oci-place.ts';
import { registryClient } from '../../remote/oci/registry-client.ts';
import { TEST_PATIENCE } from '../conformance/publisher-stage.ts';
import { type FaultyProxy, startFaultyProxy } from '../harness/faulty-proxy.ts';
import { type RegistryServer, startRegistry } from '../harness/registry-server.ts';
import { testArtefact } from '../harness/test-artefact.ts';
import { waitFor } from '../harness/wait-for.ts';

let registry: RegistryServer;
let proxy: FaultyProxy;
let host: string;
let directory: string;
let repositories = 0;
const { signal } = new AbortController();

beforeAll(async () => {
  registry = await startRegistry({ keepsAll: true });
  proxy = await startFaultyProxy(registry.origin);
  host = new URL(proxy.origin).host;
  directory = await mkdtemp(join(tmpdir(), 'weldline-oci-'));
});
afterAll(async () => {
  await proxy?.close();
  await registry?.close();
  await rm(directory, { recursive: true, force: true });
});

const RELEASE = 'merged-tiny-1.0.0-adapter-tone-3';

function openRepository(name = `models/own-${repositories++}`): Publisher {
  return openOciPublisher({ repository: `${host}/${name}` }, directory, TEST_PATIENCE);
}

function publish(
  publisher: Publisher,
  artefact: Artefact,
  publishedAt: readonly Published[] = [],
): Promise<Published> {
  return publisher.publish(artefact, { signal, onProgress: () => undefined, publishedAt });
}

/** As anyone may do it by hand. */
async function tagByHand(publisher: Publisher, from: string, to: string): Promise<void> {
  const base = `${registry.origin}/v2${publisher.name.slice(`oci://${host}`.length)}/manifests`;
  const headers = { accept: MANIFEST_TYPE, 'content-type': MANIFEST_TYPE };
  const body = await (await fetch(`${base}/${from}`, { headers })).text();
  expect((await fetch(`${base}/${to}`, { method: 'PUT', headers, body })).status).toBe(201);
}

describe('a registry', () => {
  it('gives the same artefact the same digest everywhere', async () => {
    const artefact = await testArtefact(directory, { release: RELEASE });
    const [one, other] = [
      await publish(openRepository(), artefact),
      await publish(openRepository(), artefact),
    ];
    expect(one.pinned.split('@')[1]).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(other.pinned.split('@')[1]).toBe(one.pinned.split('@')[1]);
  });

  it('keeps an alias that is pointed at what is being pruned, and its weights', async () => {
    const publisher = openRepository();
    const artefact = await testArtefact(directory, { release: RELEASE });
    const { pinned } = await publish(publisher, artefact);
    proxy.clear();
    proxy.fail({ kind: 'slow', delayMs: 1500, method: /POST/, path: /blobs\/uploads/ });
    const pruning = publisher.prune!(artefact, { signal, isDryRun: false });
    const refused = expect(pruning).rejects.toMatchObject({ code: 'publish.aliased' });
    await waitFor('the pruning', async () => proxy.requests.find(({ fault }) => fault));
    await tagByHand(publisher, RELEASE, 'production');
    await refused;
    expect(await publisher.find(artefact, signal)).toMatchObject({ isPruned: false, pinned });
    proxy.clear();
  });

  it('is asked again where another upload hides a file from it for a moment', async () => {
    const publisher = openRepository();
    await publish(publisher, await testArtefact(directory, { release: RELEASE }));
    const place = parsePlace(publisher.name.slice('oci://'.length))!;
    const client = registryClient({
      place,
      dockerConfig: directory,
      patience: { ...TEST_PATIENCE, attemptsMax: 8, backoffMs: 50 },
      codeOf: () => 'publish.unavailable',
    });
    const { bytes, manifest } = (await getManifest(client, RELEASE, signal))!;
    const [kind, hex = ''] = manifest!.layers[0]!.digest.split(':');
    const link = join(registry.repositories, place.repository, '_layers', kind!, hex, 'link');
    const linked = await readFile(link);
    // As the registry has it while it writes it again.
    await writeFile(link, '');
    proxy.clear();
    const put = putManifest(client, `${RELEASE}.1`, bytes, signal);
    const refusal = await waitFor('a refusal', async () =>
      proxy.requests.find(({ method, status }) => method === 'PUT' && status !== undefined),
    );
    await writeFile(link, linked);
    await put;
    expect(refusal.status).toBe(400);
    expect((await getManifest(client, `${RELEASE}.1`, signal))?.bytes).toEqual(bytes);
    proxy.clear();
  });

  it('takes over what another of its repositories has', async () => {
    const artefact = await testArtefact(directory, { release: RELEASE });
    const first = await publish(openRepository(), artefact);
    proxy.clear();
    const second = await publish(openRepository(), artefact, [first]);
    expect(second).toMatchObject({ existed: false, bytesSent: 0 });
    // The configuration and the manifests are all that went up.
    expect(proxy.uploadedBytes()).toBeLessThan(20_000);
  });

  it('sends what another of its repositories claims to have and has not', async () => {
    const artefact = await testArtefact(directory, { release: RELEASE });
    const pinned = `oci://${host}/models/none@sha256:${'0'.repeat(64)}`;
    const claimed = { target: 'oci', location: pinned, pinned, existed: false, bytesSent: 0 };
    const publisher = openRepository();
    expect((await publish(publisher, artefact, [claimed])).bytesSent).toBeGreaterThan(200_000);
    expect(await publisher.find(artefact, signal)).toBeDefined();
  });

  it('tells artefacts apart whose names, or what fits into a tag of them, are the same', async () => {
    const publisher = openRepository();
    const long = `merged-${'x'.repeat(150)}`;
    for (const release of [`${long}-1`, `${long}-2`]) {
      const artefact = await testArtefact(directory, { release });
      const { location } = await publish(publisher, artefact);
      expect(location.split(':').at(-1)?.length).toBeLessThanOrEqual(128);
      expect(await publisher.find({ release }, signal)).toMatchObject({ release, location });
    }
    expect(await publisher.list(signal)).toHaveLength(2);
    await publish(publisher, await testArtefact(directory, { release: 'a', part: 'b-c' }));
    const same = publish(publisher, await testArtefact(directory, { release: 'a-b', part: 'c' }));
    await expect(same).rejects.toMatchObject({ code: 'publish.conflict' });
    expect(await publisher.find({ release: 'a-b', part: 'c' }, signal)).toBeUndefined();
  });

  it('lets one of two different artefacts have a version, and tells the other', async () => {
    const publisher = openRepository();
    for (let round = 0; round < 3; round += 1) {
      const release = `${RELEASE}.${round}`;
      const both = [
        await testArtefact(directory, { release }),
        await testArtefact(directory, { release }),
      ];
      const attempts = await Promise.allSettled(both.map((each) => publish(publisher, each)));
      const found = await publisher.find({ release }, signal);
      const winner = both.findIndex((each) => each.manifestDigest === found?.manifestDigest);
      expect(attempts[winner]).toMatchObject({ status: 'fulfilled', value: { existed: false } });
      expect(attempts[1 - winner]).toMatchObject({ reason: { code: 'publish.conflict' } });
    }
  });

  it('says that it does not delete, and how it would', async () => {
    const publisher = openRepository();
    const artefact = await testArtefact(directory, { release: RELEASE });
    await publish(publisher, artefact);
    const withdrawn = publisher.withdraw({ release: RELEASE }, signal);
    await expect(withdrawn).rejects.toMatchObject({
      code: 'publish.rejected',
      message: expect.stringContaining('REGISTRY_STORAGE_DELETE_ENABLED'),
    });
    expect(await publisher.find(artefact, signal)).toBeDefined();
  });

  it('is not one that cannot be reached', async () => {
    const target = { repository: `${host}/models/tiny`, insecure: false };
    const publisher = openOciPublisher(target, directory, TEST_PATIENCE);
    const checked = publisher.check({ release: RELEASE }, undefined, signal);
    await expect(checked).rejects.toMatchObject({
      code: 'publish.unavailable',
      message: expect.stringContaining('plain HTTP'),
    });
  });
});

describe('tags that others made', () => {
  it('are neither versions nor overwritten', async () => {
    const publisher = openRepository();
    const artefact = await testArtefact(directory, { release: RELEASE });
    await publish(publisher, artefact);
    const other = await testArtefact(directory, { release: 'merged-other-1' });
    await tagByHand(publisher, RELEASE, 'merged-other-1');
    expect(await publisher.find(other, signal)).toBeUndefined();
    await expect(publish(publisher, other)).rejects.toMatchObject({ code: 'publish.conflict' });
    await expect(publisher.check(other, undefined, signal)).rejects.toMatchObject({
      code: 'publish.conflict',
    });
    expect(await publisher.list(signal)).toHaveLength(1);
  });

  it('are aliases without a history', async () => {
    const publisher = openRepository();
    for (const release of [RELEASE, `${RELEASE}.1`]) {
      await publish(publisher, await testArtefact(directory, { release }));
    }
    await tagByHand(publisher, RELEASE, 'production');
    expect(await publisher.readAlias('production', undefined, signal)).toEqual({
      release: RELEASE,
      history: [],
    });
    expect(await publisher.listAliases(signal)).toEqual([
      { alias: 'production', release: RELEASE, history: [] },
    ]);
    await expect(publisher.withdraw({ release: RELEASE }, signal)).rejects.toMatchObject({
      code: 'publish.aliased',
    });
    const from = { release: RELEASE, history: [] };
    const move = { alias: 'production', to: `${RELEASE}.1`, from, history: [RELEASE] };
    await publisher.moveAlias(move, signal);
    // By hand again, to where nothing led.
    await tagByHand(publisher, RELEASE, 'production');
    expect((await publisher.readAlias('production', undefined, signal))?.release).toBe(RELEASE);
  });

  it('keep their names from aliases', async () => {
    const publisher = openRepository();
    await publish(publisher, await testArtefact(directory, { release: RELEASE }));
    await publish(publisher, await testArtefact(directory, { release: 'live' }));
    const from = { release: 'live', history: [] };
    const move = { alias: 'live', to: RELEASE, from, history: [] };
    await expect(publisher.moveAlias(move, signal)).rejects.toMatchObject({
      code: 'publish.conflict',
      message: expect.stringContaining('as a version'),
    });
  });
});

describe('names', () => {
  it('of tags are the same for the same name, and fit', () => {
    const long = 'x'.repeat(200);
    expect(tagOf(RELEASE)).toBe(RELEASE);
    expect(tagOf(long)).toBe(tagOf(long));
    expect(tagOf(long)).toHaveLength(128);
    expect(tagOf(long)).not.toBe(tagOf(`${long}x`));
    expect(`_alias-${aliasTagOf('a'.repeat(50), 'p'.repeat(100))}`).toHaveLength(128);
  });

  it.each([
    ['registry.example.com/models/support', 'https://registry.example.com'],
    ['registry.example.com:5000/a', 'https://registry.example.com:5000'],
    ['127.0.0.1:5000/a/b', 'http://127.0.0.1:5000'],
    ['localhost:5000/a', 'http://localhost:5000'],
    ['[::1]:5000/a', 'http://[::1]:5000'],
    ['[2001:db8::1]/a', 'https://[2001:db8::1]'],
    ['docker.io/org/model', 'https://registry-1.docker.io'],
    ['127.evil.example.com/a', 'https://127.evil.example.com'],
  ])('of repositories lead to their registry: %s', (text, origin) => {
    expect(parsePlace(text)?.origin).toBe(origin);
  });

  it.each([
    'registry.example.com',
    'a/B',
    'a/../b',
    'a/b//c',
    'me:secret@host/a',
    'host:port/a',
    '',
  ])('of repositories are checked: %s', (text) => {
    expect(parsePlace(text)).toBeUndefined();
  });

  it('of references have a tag or a digest', () => {
    const digest = `sha256:${'a'.repeat(64)}`;
    expect(parseOciUri('oci://host:5000/a/b:1.0')).toMatchObject({
      registry: 'host:5000',
      repository: 'a/b',
      version: '1.0',
    });
    expect(parseOciUri(`oci://host/a:1.0@${digest}`)?.version).toBe(digest);
    for (const wrong of ['host/a:1', 'oci://host/a', 'oci://host/a@sha256:12', 'oci://host/a:']) {
      expect(parseOciUri(wrong), wrong).toBeUndefined();
    }
  });
});
