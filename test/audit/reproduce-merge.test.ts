import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type ReproduceOptions,
  type Reproduction,
  reproduceMerge,
} from '../../audit/reproduce-merge.ts';
import { verifyArtefact } from '../../audit/verify-artefact.ts';
import { readEnvironment } from '../../config/environment.ts';
import { modelAccess } from '../../workers/model-access.ts';
import { readFiles } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { baseFiles, tinyBase } from '../doubles/tiny-model.ts';
import { startWebServer } from '../harness/web-server.ts';
import { startTestHub, type TestHub } from '../hub-server/test-hub.ts';
import { type PublishedRelease, publishConversion, publishRelease } from './published-release.ts';

let root: string;
let release: PublishedRelease;
let onHub: PublishedRelease;
let hub: TestHub;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-reproduce-'));
  release = await publishRelease(join(root, 'local'));
  const files = Object.fromEntries(baseFiles(tinyBase({ shards: 2 })));
  hub = await startTestHub({
    'org/tiny': {
      main: Object.fromEntries(Object.entries(files).map(([k, v]) => [k, Buffer.from(v)])),
    },
  });
  const base = { model: 'hf://org/tiny', commit: hub.commitOf('org/tiny', 'main') };
  const combination = { method: 'ties', parameters: { density: 0.4 } } as const;
  onHub = await publishRelease(join(root, 'hub'), { base, combination });
});
afterAll(async () => {
  await hub.close();
  await rm(root, { recursive: true, force: true });
});

function accessIn(home: string) {
  return modelAccess(
    readEnvironment({
      WELDLINE_HOME: home,
      HF_HOME: join(home, 'hf'),
      HF_ENDPOINT: hub.endpoint,
      HF_TOKEN_PATH: join(home, 'none'),
    }),
  );
}

async function reproduce(
  target: string,
  changes: Partial<ReproduceOptions> = {},
): Promise<Reproduction> {
  const home = await temporaryDirectory();
  return reproduceMerge({
    access: accessIn(home),
    target,
    output: join(home, 'reproductions', 'again'),
    isKept: false,
    threads: 1,
    memoryBudgetBytes: 200_000_000,
    signal: new AbortController().signal,
    onFetch: () => undefined,
    onBytes: () => undefined,
    onMerge: () => undefined,
    ...changes,
  });
}

const differing = ({ files }: Reproduction) =>
  files.filter(({ found, sha256 }) => found !== sha256).map(({ path }) => path);

async function copyOf({ directory }: PublishedRelease): Promise<string> {
  const copy = join(await temporaryDirectory(), 'release');
  await cp(directory, copy, { recursive: true });
  return copy;
}

describe('a release made again', () => {
  it('has the same bytes from another number of threads, and leaves nothing', async () => {
    const home = await temporaryDirectory();
    const output = join(home, 'reproductions', 'again');
    const again = await reproduce(release.directory, { base: release.base, output });
    expect(again.files.map(({ path }) => path)).toEqual([
      'config.json',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
      'weldline.json',
    ]);
    expect(differing(again)).toEqual([]);
    expect(again).toMatchObject({ plan: release.manifest.plan, target: release.directory });
    expect(await readdir(join(home, 'reproductions'))).toEqual([]);
  });

  it('is kept where that was asked for', async () => {
    const output = join(await temporaryDirectory(), 'kept');
    const keeping = { base: release.base, output, isKept: true };
    await reproduce(join(release.directory, 'release.json'), keeping);
    const made = await readFiles(output);
    for (const [path, bytes] of made) {
      expect(bytes.equals(await readFile(join(release.directory, path))), path).toBe(true);
    }
    await expect(reproduce(release.directory, keeping)).rejects.toMatchObject({
      code: 'output.exists',
    });
  });

  it('takes a base from the hub, at its commit, and adapters from the archive', async () => {
    const again = await reproduce(onHub.directory);
    expect(differing(again)).toEqual([]);
    expect(hub.requests.some(({ path }) => path.includes('model-00001'))).toBe(true);
  });

  it('needs no more than what a pruned release keeps, at a URL', async () => {
    const copy = await copyOf(onHub);
    for (const name of await readdir(copy)) {
      if (name.endsWith('.safetensors')) await rm(join(copy, name));
    }
    const server = await startWebServer({ root: copy });
    try {
      expect(differing(await reproduce(server.origin))).toEqual([]);
    } finally {
      await server.close();
    }
  });

  it('needs no more than release.json and the archive', async () => {
    const copy = await copyOf(onHub);
    await rm(join(copy, 'weldline.json'));
    const again = await reproduce(join(copy, 'release.json'));
    expect(differing(again)).toEqual([]);
    expect(again.files).toHaveLength(4);
  });

  it('differs by a file that its manifest keeps silent about', async () => {
    const copy = await copyOf(onHub);
    await rm(join(copy, 'weldline.json'));
    const path = join(copy, 'release.json');
    const said = JSON.parse(await readFile(path, 'utf8'));
    said.files = said.files.filter((file: { path: string }) => file.path !== 'config.json');
    await writeFile(path, JSON.stringify(said));
    expect(differing(await reproduce(path))).toEqual(['config.json']);
  });

  it('is the merge, where a conversion of it was asked for', async () => {
    const directory = await publishConversion(await temporaryDirectory(), release);
    await expect(reproduce(directory, { base: release.base })).rejects.toMatchObject({
      code: 'verify.input-missing',
      message: expect.stringContaining('the merged checkpoint does'),
    });
    await cp(join(release.directory, 'adapters'), join(directory, 'adapters'), { recursive: true });
    const again = await reproduce(directory, { base: release.base });
    expect(again.conversion).toBe('gguf-f16');
    expect(again.files.length - differing(again).length).toBe(4);
  });

  it('says which files came out otherwise', async () => {
    const copy = await copyOf(release);
    const path = join(copy, 'weldline.json');
    const wrong = release.manifest.files[1]?.sha256 ?? '';
    await writeFile(path, (await readFile(path, 'utf8')).replace(wrong, '0'.repeat(64)));
    const again = await reproduce(copy, { base: release.base });
    expect(differing(again)).toEqual(['model-00001-of-00002.safetensors', 'weldline.json']);
  });
});

describe('a release that cannot be made again', () => {
  it('says what it lacks', async () => {
    await expect(reproduce(release.directory)).rejects.toMatchObject({
      code: 'verify.input-missing',
      message: expect.stringMatching(/base was a directory called tiny.*name it with --base/),
    });
    const copy = await copyOf(release);
    await rm(join(copy, 'adapters'), { recursive: true });
    await expect(reproduce(copy, { base: release.base })).rejects.toMatchObject({
      code: 'verify.input-missing',
      message: expect.stringContaining('the adapter "a" was a directory called tone'),
    });
  });

  it.each(['adapter_model.safetensors', 'adapter_config.json'])(
    'names what was changed in its archive: %s',
    async (name) => {
      const copy = await copyOf(release);
      const path = join(copy, 'adapters', 'a', name);
      const bytes = await readFile(path);
      bytes.writeUInt8(bytes.readUInt8(bytes.length - 3) ^ 1, bytes.length - 3);
      await writeFile(path, bytes);
      await expect(reproduce(copy, { base: release.base })).rejects.toMatchObject({
        code: 'verify.digest-mismatch',
        message: expect.stringContaining(name),
      });
    },
  );

  it.each([
    [/"format": 1,?\n/, '"format": 2\n', 'verify.other-engine', 'Use weldline'],
    [/"plan": "[0-9a-f]{4}/, '"plan": "0000', 'verify.other-plan', 'do not give its plan'],
    [/"options": \{\}/, '"options": {"dtype": "int3"}', 'manifest.invalid', 'dtype'],
  ])('was not made as its manifest says: %s', async (from, to, code, message) => {
    const copy = await copyOf(release);
    const path = join(copy, 'weldline.json');
    const text = await readFile(path, 'utf8');
    const changed = text.replace(from, to);
    expect(changed).not.toBe(text);
    await writeFile(path, changed);
    await expect(reproduce(copy, { base: release.base })).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
  });
});

it('verifies with a base that it fetches only if it may', async () => {
  const home = await temporaryDirectory();
  const verify = (mayFetch: boolean, base?: string) =>
    verifyArtefact({
      access: accessIn(home),
      target: onHub.directory,
      mayFetch,
      base,
      signal: new AbortController().signal,
    });
  const plan = async (mayFetch: boolean, base?: string) =>
    (await verify(mayFetch, base)).claims.find(({ claim }) => claim === 'plan');
  hub.requests.length = 0;
  expect(await plan(false)).toMatchObject({
    status: 'not-checked',
    text: expect.stringMatching(/hf:\/\/org\/tiny \([0-9a-f]{40}\).*--fetch/),
  });
  expect(hub.requests).toEqual([]);
  expect(await plan(false, 'hf://org/tiny')).toMatchObject({
    status: 'not-checked',
    text: expect.stringContaining('--fetch brings it here'),
  });
  expect(await plan(true)).toMatchObject({ status: 'verified' });
  hub.requests.length = 0;
  expect(await plan(false)).toMatchObject({ status: 'verified' });
  expect(hub.requests).toEqual([]);
});
