import { createHash } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { WeldlineError } from '../../../engine/errors.ts';
import { codeOfStatus } from '../../../publishers/publisher.ts';
import { uploadBlob } from '../../../remote/oci/blob-upload.ts';
import { type Blob, hasBlob } from '../../../remote/oci/blobs.ts';
import { parsePlace } from '../../../remote/oci/oci-place.ts';
import { type RegistryClient, registryClient } from '../../../remote/oci/registry-client.ts';
import { type FaultyProxy, startFaultyProxy } from '../../harness/faulty-proxy.ts';
import { type RegistryServer, startRegistry } from '../../harness/registry-server.ts';
import { testBytes } from '../../hub-server/test-bytes.ts';

const PATIENCE = { attemptsMax: 3, backoffMs: 5, stallTimeoutMs: 10_000, retryAfterMaxMs: 1000 };
const CHUNK = 100_000;
const SIZE = 350_000;

let registry: RegistryServer;
let proxy: FaultyProxy;
let client: RegistryClient;
let seed = 0;
const { signal } = new AbortController();

beforeAll(async () => {
  registry = await startRegistry();
  proxy = await startFaultyProxy(registry.origin);
  const place = parsePlace(`${new URL(proxy.origin).host}/a/b`)!;
  client = registryClient({
    ...{ place, patience: PATIENCE, codeOf: codeOfStatus },
    dockerConfig: '/nowhere',
  });
});
afterAll(async () => {
  await proxy?.close();
  await registry?.close();
});
beforeEach(() => {
  seed += 1;
  proxy.clear();
});

/** With bytes that the registry does not have yet. */
function freshBlob(content = testBytes(SIZE, seed)): Blob {
  return {
    digest: `sha256:${createHash('sha256').update(content).digest('hex')}`,
    size: content.length,
    name: 'model.safetensors',
    async *open(offset, length) {
      yield content.subarray(offset, offset + length);
    },
  };
}

async function upload(blob: Blob): Promise<readonly number[]> {
  const steps: number[] = [];
  const onBytes = (bytes: number) => steps.push(bytes);
  await uploadBlob(client, blob, { signal, onBytes, chunkBytes: CHUNK });
  return steps;
}

async function stored(blob: Blob): Promise<string> {
  const answer = await fetch(`${registry.origin}/v2/a/b/blobs/${blob.digest}`);
  const bytes = Buffer.from(await answer.arrayBuffer());
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

const sent = () => proxy.uploadedBytes(/^(PATCH|PUT) /);
const patches = () => proxy.requests.filter(({ method }) => method === 'PATCH').length;

describe('the upload of a blob', () => {
  it('goes in chunks', async () => {
    const blob = freshBlob();
    expect(await upload(blob)).toEqual([CHUNK, 2 * CHUNK, 3 * CHUNK, SIZE, SIZE]);
    expect(await stored(blob)).toBe(blob.digest);
    expect([patches(), sent()]).toEqual([4, SIZE]);
  });

  it.each([0, 1, CHUNK])('goes in one request with %i bytes', async (size) => {
    const blob = freshBlob(testBytes(size, seed));
    await upload(blob);
    expect(await stored(blob)).toBe(blob.digest);
    expect([patches(), sent()]).toEqual([0, size]);
  });

  it('goes on with the chunk that the registry refused', async () => {
    const blob = freshBlob();
    proxy.fail({ kind: 'status', status: 503, method: /PATCH/, skip: 2 });
    await upload(blob);
    expect(await stored(blob)).toBe(blob.digest);
    expect(sent()).toBe(SIZE + CHUNK);
  });

  // The CNCF registry keeps the state of a session in its address, which each answer changes, and
  // gives a session up with a connection that breaks.
  it.each([
    { kind: 'status-after', status: 500 },
    { kind: 'drop-answer' },
    { kind: 'drop-request', afterBytes: 50_000 },
  ] as const)('begins again when the registry has lost its session: $kind', async (fault) => {
    const blob = freshBlob();
    proxy.fail({ ...fault, method: /PATCH/, skip: 1 });
    await upload(blob);
    expect(await stored(blob)).toBe(blob.digest);
    expect(sent()).toBeLessThanOrEqual(SIZE + 2 * CHUNK);
  });

  it('is done when only its last answer was lost', async () => {
    const blob = freshBlob();
    proxy.fail({ kind: 'drop-answer', method: /PUT/ });
    await upload(blob);
    expect(await stored(blob)).toBe(blob.digest);
    expect(sent()).toBe(SIZE);
  });

  it.each([405, 413, 416])('goes in one request where chunks are answered %i', async (status) => {
    const blob = freshBlob();
    proxy.fail({ kind: 'status', status, method: /PATCH/, times: Infinity });
    await upload(blob);
    expect(await stored(blob)).toBe(blob.digest);
    expect(patches()).toBe(1);
  });

  it('gives up when it fails again and again', async () => {
    proxy.fail({ kind: 'drop-request', method: /PATCH/, times: Infinity });
    await expect(upload(freshBlob())).rejects.toMatchObject({ code: 'publish.unavailable' });
    expect(patches()).toBe(PATIENCE.attemptsMax);
  });

  it('fails when other bytes arrive than were to be sent', async () => {
    for (const size of [SIZE, CHUNK]) {
      const blob = { ...freshBlob(testBytes(size, seed)), digest: `sha256:${'0'.repeat(64)}` };
      const error = await upload(blob).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(WeldlineError);
      expect(error).toMatchObject({ code: 'publish.verify-failed' });
      expect((error as Error).message).toContain('model.safetensors');
      expect(await hasBlob(client, blob, signal)).toBe(false);
    }
  });

  it('finds that the registry has a blob in another size', async () => {
    const blob = freshBlob(testBytes(1000, seed));
    await upload(blob);
    const other = hasBlob(client, { ...blob, size: 999 }, signal);
    await expect(other).rejects.toMatchObject({ code: 'publish.verify-failed' });
  });
});
