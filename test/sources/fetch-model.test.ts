import { createHash } from 'node:crypto';
import {
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { FetchProgress } from '../../sources/fetch-blobs.ts';
import { fetchModel } from '../../sources/fetch-model.ts';
import { blobPaths } from '../../sources/hub-cache.ts';
import { blobName, type HubModel, resolveHubModel } from '../../sources/hub-model.ts';
import { testBytes } from '../hub-server/test-bytes.ts';
import { startTestHub, type TestHub, type TestRepository } from '../hub-server/test-hub.ts';

const RANGE_BYTES = 64 * 1024;
const WEIGHTS = testBytes(1_000_003);
const SHARD = testBytes(300_000, 1);
const FILES: TestRepository = {
  main: {
    'config.json': '{"hidden_size": 64}',
    'empty.txt': '',
    'model-00001-of-00002.safetensors': WEIGHTS,
    'model-00002-of-00002.safetensors': SHARD,
    'templates/deep/chat.jinja': '{{ messages }}',
    'templates/same.jinja': '{{ messages }}',
  },
};

let hub: TestHub;
afterEach(() => hub.close());

async function start(options: Parameters<typeof startTestHub>[1] = {}): Promise<HubModel> {
  hub = await startTestHub({ 'acme/tiny': FILES }, options);
  return resolveHubModel(hub.connection(), { repo: 'acme/tiny', revision: 'main' });
}

function fetchAll(model: HubModel, more: Partial<Parameters<typeof fetchModel>[1]> = {}) {
  return fetchModel(hub.connection(), {
    model,
    files: model.files,
    cacheDirectory: hub.cacheDirectory,
    rangeBytes: RANGE_BYTES,
    ...more,
  });
}

function pathsOf(model: HubModel, name: string) {
  const file = model.files.find((candidate) => candidate.path === name)!;
  return blobPaths(hub.cacheDirectory, model.repo, blobName(file));
}

describe('fetchModel', () => {
  it('brings every file into the snapshot, as relative links to verified blobs', async () => {
    const model = await start();
    const { directory, bytesReceived } = await fetchAll(model);
    expect(directory.endsWith(path.join('models--acme--tiny', 'snapshots', model.commit))).toBe(
      true,
    );
    for (const [name, content] of Object.entries(FILES['main']!)) {
      expect(Buffer.compare(await readFile(path.join(directory, name)), Buffer.from(content))).toBe(
        0,
      );
    }
    const sha256 = createHash('sha256').update(WEIGHTS).digest('hex');
    expect(await readlink(path.join(directory, 'model-00001-of-00002.safetensors'))).toBe(
      `../../blobs/${sha256}`,
    );
    expect(await readlink(path.join(directory, 'templates/deep/chat.jinja'))).toMatch(
      /^\.\.\/\.\.\/\.\.\/\.\.\/blobs\/[0-9a-f]{40}$/,
    );
    // The two templates are one blob and are fetched once.
    expect(bytesReceived).toBe(WEIGHTS.length + SHARD.length + 19 + 14);
    const ref = path.join(directory, '../../refs/main');
    expect(await readFile(ref, 'utf8')).toBe(model.commit);
  });

  it('fetches ranges in parallel, each once', async () => {
    const model = await start();
    await fetchAll(model);
    const ranges = hub.requests
      .filter(({ target, path: name }) => target === 'storage' && name.includes('00001'))
      .map(({ range }) => range);
    expect(ranges).toHaveLength(Math.ceil(WEIGHTS.length / RANGE_BYTES));
    expect(new Set(ranges).size).toBe(ranges.length);
    expect(hub.contentBytes()).toBe(WEIGHTS.length + SHARD.length + 19 + 14);
  });

  it('opens no more connections than allowed', async () => {
    const model = await start({ bytesPerSecond: 2_000_000 });
    let open = 0;
    let most = 0;
    const counting: typeof fetch = async (...call) => {
      open += 1;
      most = Math.max(most, open);
      const response = await fetch(...call);
      if (response.body === null || response.status === 302) open -= 1;
      else {
        const counted = response.body.pipeThrough(
          new TransformStream({
            flush() {
              open -= 1;
            },
          }),
        );
        return new Response(counted, response);
      }
      return response;
    };
    await fetchModel(
      { ...hub.connection(), fetch: counting },
      {
        model,
        files: model.files,
        cacheDirectory: hub.cacheDirectory,
        rangeBytes: RANGE_BYTES,
        connectionsMax: 3,
      },
    );
    expect(most).toBe(3);
  });

  it('fetches nothing the second time', async () => {
    const model = await start();
    const first = await fetchAll(model);
    hub.requests.length = 0;
    const second = await fetchAll(model);
    expect(second).toEqual({ ...first, bytesReceived: 0 });
    expect(hub.requests).toEqual([]);
  });

  it('fetches only the files chosen, and a further one later', async () => {
    const model = await start();
    const config = model.files.filter((file) => file.path === 'config.json');
    const { directory } = await fetchAll(model, { files: config });
    expect(await readdir(directory)).toEqual(['config.json']);
    hub.requests.length = 0;
    await fetchAll(model);
    expect(hub.requests.some((request) => request.path === 'config.json')).toBe(false);
    expect(await readdir(directory)).toHaveLength(5);
  });

  it('shares blobs between revisions', async () => {
    const model = await start();
    await fetchAll(model);
    await hub.write('acme/tiny', 'main', 'config.json', '{"hidden_size": 128}');
    await hub.reload();
    hub.requests.length = 0;
    const next = await resolveHubModel(hub.connection(), { repo: 'acme/tiny', revision: 'main' });
    expect(next.commit).not.toBe(model.commit);
    const { directory, bytesReceived } = await fetchAll(next);
    expect(bytesReceived).toBe(20);
    expect(await readFile(path.join(directory, '../../refs/main'), 'utf8')).toBe(next.commit);
  });

  it('writes no ref for a commit', async () => {
    const { commit } = await start();
    const model = await resolveHubModel(hub.connection(), { repo: 'acme/tiny', revision: commit });
    const { directory } = await fetchAll(model);
    expect(await readdir(path.join(directory, '../..'))).toEqual(['blobs', 'snapshots']);
  });

  it('replaces a blob that has the right size but wrong bytes', async () => {
    const model = await start();
    const { blob } = pathsOf(model, 'model-00001-of-00002.safetensors');
    await mkdir(path.dirname(blob), { recursive: true });
    await writeFile(blob, Buffer.alloc(WEIGHTS.length));
    const { directory } = await fetchAll(model);
    const fetched = await readFile(path.join(directory, 'model-00001-of-00002.safetensors'));
    expect(Buffer.compare(fetched, WEIGHTS)).toBe(0);
  });

  it('checks a blob again that changed after it was checked', async () => {
    const model = await start();
    const { directory } = await fetchAll(model);
    await writeFile(pathsOf(model, 'config.json').blob, '{"hidden_size": 65}');
    await fetchAll(model);
    expect(await readFile(path.join(directory, 'config.json'), 'utf8')).toBe('{"hidden_size": 64}');
  });

  it('puts its link where a wrong file stands in the snapshot', async () => {
    const model = await start();
    const { directory } = await fetchAll(model);
    const link = path.join(directory, 'config.json');
    await rm(link);
    await writeFile(link, 'edited by hand');
    await fetchAll(model);
    expect((await lstat(link)).isSymbolicLink()).toBe(true);
    expect(await readFile(link, 'utf8')).toBe('{"hidden_size": 64}');
  });

  it('reports progress up to the total', async () => {
    const model = await start();
    const seen: FetchProgress[] = [];
    await fetchAll(model, { onProgress: (progress) => seen.push(progress) });
    const total = WEIGHTS.length + SHARD.length + 19 + 14;
    expect(seen.at(-1)).toMatchObject({
      bytesDone: total,
      bytesTotal: total,
      bytesReceived: total,
    });
    const bytes = seen.map(({ bytesDone }) => bytesDone);
    expect(bytes).toEqual(bytes.toSorted((a, b) => a - b));
    expect(new Set(seen.map(({ file }) => file))).toContain('model-00002-of-00002.safetensors');
  });

  it('lets two downloads of the same model run at once', async () => {
    const model = await start();
    await Promise.all([fetchAll(model), fetchAll(model)]);
    expect(hub.contentBytes()).toBe(WEIGHTS.length + SHARD.length + 19 + 14);
  });

  it('leaves nothing but blobs and notes about them', async () => {
    const model = await start();
    await fetchAll(model);
    const names = await readdir(path.dirname(pathsOf(model, 'config.json').blob));
    const kinds = new Set(names.map((name) => name.replace(/^[0-9a-f]+/, '')));
    expect(kinds).toEqual(new Set(['', '.weldline.verified']));
  });
});

describe('fetchModel that cannot go on', () => {
  it('stops on request, keeps what it has, and goes on later', async () => {
    const model = await start({ bytesPerSecond: 200_000 });
    const abort = new AbortController();
    const reason = new Error('stopped by a person');
    const stopped = fetchAll(model, {
      signal: abort.signal,
      onProgress: ({ bytesReceived }) => {
        if (bytesReceived > 600_000) abort.abort(reason);
      },
    });
    await expect(stopped).rejects.toBe(reason);
    const { lock, blob } = pathsOf(model, 'model-00001-of-00002.safetensors');
    expect(await readdir(path.dirname(blob))).not.toContain(path.basename(lock));
    const { bytesReceived } = await fetchAll(model);
    expect(bytesReceived).toBeLessThan(WEIGHTS.length + SHARD.length - 2 * RANGE_BYTES);
  });

  it('does nothing for a signal that has fired', async () => {
    const model = await start();
    hub.requests.length = 0;
    const signal = AbortSignal.abort(new Error('too late'));
    await expect(fetchAll(model, { signal })).rejects.toThrow('too late');
    expect(hub.requests).toEqual([]);
  });

  it('finds out before the first byte that the model cannot fit', async () => {
    const model = await start();
    hub.requests.length = 0;
    const files = model.files.map((file) => ({ ...file, size: file.size * 2 ** 30 }));
    await expect(fetchAll(model, { files })).rejects.toMatchObject({
      code: 'disk.full',
      details: { bytesNeeded: expect.any(Number), bytesFree: expect.any(Number) },
    });
    expect(hub.requests).toEqual([]);
  });

  it('says when the disk runs full on the way', async () => {
    const model = await start();
    const { partial } = pathsOf(model, 'model-00001-of-00002.safetensors');
    await mkdir(path.dirname(partial), { recursive: true });
    // Every write to this device fails as on a full disk.
    await symlink('/dev/full', partial);
    await expect(fetchAll(model)).rejects.toMatchObject({
      code: 'disk.full',
      message: expect.stringContaining('HF_HUB_CACHE'),
    });
  });

  it('names a cache it may not write to', async () => {
    const model = await start();
    await writeFile(hub.cacheDirectory, 'a file where the cache should be');
    await expect(fetchAll(model)).rejects.toMatchObject({
      code: 'disk.write-failed',
      message: expect.stringContaining(hub.cacheDirectory),
    });
  });
});
