import { afterEach, describe, expect, it } from 'vitest';
import { resolveHubModel } from '../../sources/hub-model.ts';
import { openHubSource } from '../../sources/hub-source.ts';
import { testByteSource } from '../conformance/byte-source.ts';
import { testBytes } from '../hub-server/test-bytes.ts';
import { startTestHub, type TestHub } from '../hub-server/test-hub.ts';

let hub: TestHub;
afterEach(() => hub.close());

async function openFile(name: string, content: Buffer, token?: string) {
  hub = await startTestHub({ 'acme/tiny': { main: { [name]: content } } });
  const connection = hub.connection(token);
  const model = await resolveHubModel(connection, { repo: 'acme/tiny', revision: 'main' });
  return openHubSource(connection, model, model.files[0]!);
}

testByteSource('openHubSource of a file in LFS', async (content) => ({
  source: await openFile('model.safetensors', content),
}));

testByteSource('openHubSource of a file in git', async (content) => ({
  source: await openFile('tokenizer.json', content),
}));

describe('openHubSource', () => {
  it('asks for no more than the range', async () => {
    const source = await openFile('model.safetensors', testBytes(5_000_000));
    expect(hub.contentRequests()).toBe(0);
    await source.read(8, 1000);
    expect(hub.contentBytes()).toBe(1000);
    expect(source.name).toBe(
      `hf://acme/tiny@${hub.commitOf('acme/tiny', 'main')}/model.safetensors`,
    );
  });

  it('asks the hub for the storage link once, and again when it has expired', async () => {
    const content = testBytes(100_000);
    hub = await startTestHub(
      { 'acme/tiny': { main: { 'model.safetensors': content } } },
      { linkLifeMs: 3_000 },
    );
    const connection = hub.connection();
    const model = await resolveHubModel(connection, { repo: 'acme/tiny', revision: 'main' });
    const source = openHubSource(connection, model, model.files[0]!);
    const lookUps = () => hub.requests.filter(({ target }) => target === 'resolve').length;
    await source.read(0, 10);
    await source.read(10, 10);
    expect(lookUps()).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 3_200));
    expect(Buffer.compare(await source.read(20, 10), content.subarray(20, 30))).toBe(0);
    expect(lookUps()).toBe(2);
  });

  it('goes on at the byte reached when the connection drops', async () => {
    const content = testBytes(1_000_000);
    const source = await openFile('model.safetensors', content);
    hub.inject({ kind: 'drop', target: 'storage', afterBytes: 400_000 });
    expect(Buffer.compare(await source.read(0, 1_000_000), content)).toBe(0);
    const ranges = hub.requests
      .filter(({ target }) => target === 'storage')
      .map(({ range }) => range);
    expect(ranges[0]).toBe('bytes=0-999999');
    expect(Number(/^bytes=(\d+)-/.exec(ranges[1]!)![1])).toBeGreaterThan(0);
    expect(hub.contentBytes()).toBeLessThan(1_500_000);
  });

  it('stops a read under way when it is closed', async () => {
    const source = await openFile('model.safetensors', testBytes(1000));
    hub.inject({ kind: 'stall', target: 'storage', afterBytes: 10 });
    const read = source.read(0, 1000);
    await source.close();
    await expect(read).rejects.toMatchObject({ name: 'AbortError' });
  });
});
