import { appendFile, cp, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Claim } from '../../audit/claim.ts';
import {
  type VerifiedArtefact,
  type VerifyArtefactOptions,
  verifyArtefact,
} from '../../audit/verify-artefact.ts';
import { readEnvironment } from '../../config/environment.ts';
import { modelAccess } from '../../workers/model-access.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { startWebServer } from '../harness/web-server.ts';
import {
  filesIn,
  type PublishedRelease,
  publishConversion,
  publishRelease,
} from './published-release.ts';

let root: string;
let release: PublishedRelease;
let unsigned: PublishedRelease;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-audit-'));
  release = await publishRelease(join(root, 'signed'));
  unsigned = await publishRelease(join(root, 'unsigned'), { isSigned: false });
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

type Changes = Partial<VerifyArtefactOptions>;

async function verify(target: string, changes: Changes = {}): Promise<VerifiedArtefact> {
  const variables = { WELDLINE_HOME: join(root, 'home'), HF_HOME: join(root, 'hf') };
  return verifyArtefact({
    access: modelAccess(readEnvironment(variables)),
    target,
    trust: { publicKey: release.publicKey },
    base: release.base,
    mayFetch: false,
    signal: new AbortController().signal,
    ...changes,
  });
}

const statuses = ({ claims }: VerifiedArtefact) =>
  Object.fromEntries(claims.map(({ claim, status }) => [claim, status]));
const claimOf = ({ claims }: VerifiedArtefact, name: Claim['claim']) =>
  claims.find(({ claim }) => claim === name);

const ALL_VERIFIED = {
  files: 'verified',
  manifest: 'verified',
  tensors: 'verified',
  provenance: 'verified',
  bom: 'verified',
  signature: 'verified',
  adapters: 'verified',
  plan: 'verified',
  rows: 'verified',
};

/** A copy that may be spoilt. */
async function copyOf({ directory }: PublishedRelease): Promise<string> {
  const copy = join(await temporaryDirectory(), 'release');
  await cp(directory, copy, { recursive: true });
  return copy;
}

/** What is said of what is wrong: by claims that failed, or in place of all claims. */
async function complaints(directory: string, changes: Changes = {}): Promise<string> {
  try {
    const { claims } = await verify(directory, changes);
    const failed = claims.filter(({ status }) => status === 'failed');
    return failed.map(({ text }) => text).join('\n');
  } catch (error) {
    expect((error as { code?: string }).code).toBe('manifest.invalid');
    return (error as Error).message;
  }
}

describe('a release that is as it was published', () => {
  it('has all its claims verified', async () => {
    const verified = await verify(release.directory);
    expect(verified.claims.filter(({ status }) => status !== 'verified')).toEqual([]);
    expect(statuses(verified)).toEqual(ALL_VERIFIED);
    expect(claimOf(verified, 'rows')?.text).toMatch(/^\d+ sampled rows/);
  });

  it('is told to be unchecked where something is not at hand', async () => {
    const verified = await verify(release.directory, { trust: undefined, base: undefined });
    expect(statuses(verified)).toEqual({
      ...ALL_VERIFIED,
      signature: 'not-checked',
      plan: 'not-checked',
      rows: 'not-checked',
    });
    expect(claimOf(verified, 'signature')?.text).toContain('--key');
    expect(claimOf(verified, 'plan')?.text).toMatch(/directory called tiny.*--base/);
  });

  it('is told to be unsigned', async () => {
    const changes = { trust: undefined, base: unsigned.base };
    const verified = await verify(unsigned.directory, changes);
    expect(claimOf(verified, 'signature')).toMatchObject({
      status: 'not-checked',
      text: 'it is not signed',
    });
    const asked = await verify(unsigned.directory, { base: unsigned.base });
    expect(claimOf(asked, 'signature')).toMatchObject({ status: 'failed' });
  });

  it('is read at a URL, and nothing of it is stored', async () => {
    const server = await startWebServer({ root: release.directory });
    try {
      const paths = async () => (await filesIn(root)).map(({ path }) => path);
      const before = await paths();
      expect(statuses(await verify(server.origin))).toEqual(ALL_VERIFIED);
      expect(await paths()).toEqual(before);
    } finally {
      await server.close();
    }
  });

  it('is not read to the end once a file at a URL is another', async () => {
    const server = await startWebServer({ root: release.directory });
    try {
      server.inject({ kind: 'etag', path: /^README/ });
      // For a minute, unless it is stopped.
      server.inject({ kind: 'stall', path: /^model-00001/ });
      const startedAt = performance.now();
      await expect(verify(server.origin)).rejects.toMatchObject({ code: 'source.changed' });
      expect(performance.now() - startedAt).toBeLessThan(50_000);
    } finally {
      await server.close();
    }
  });

  it('keeps what can be checked when its weights were pruned', async () => {
    const copy = await copyOf(release);
    for (const name of ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']) {
      await rm(join(copy, name));
    }
    await writeFile(join(copy, 'pruned.json'), '{}');
    expect(statuses(await verify(copy))).toEqual({
      ...ALL_VERIFIED,
      files: 'not-checked',
      tensors: 'not-checked',
      rows: 'not-checked',
    });
    await appendFile(join(copy, 'config.json'), ' ');
    expect(claimOf(await verify(copy), 'signature')?.text).toContain('config.json is not what');
    await rm(join(copy, 'config.json'));
    expect(await complaints(copy)).toContain('config.json');
  });

  it('checks all that is there, whoever says that it was pruned', async () => {
    const copy = await copyOf(release);
    await writeFile(join(copy, 'pruned.json'), '{}');
    expect(statuses(await verify(copy))).toEqual(ALL_VERIFIED);
  });
});

describe('a conversion', () => {
  it('is verified as far as it goes, and found when it is changed', async () => {
    const directory = await publishConversion(await temporaryDirectory(), release);
    const changes = { trust: undefined };
    expect(statuses(await verify(directory, changes))).toMatchObject({
      files: 'verified',
      manifest: 'verified',
      tensors: 'not-checked',
      adapters: 'not-checked',
      plan: 'not-checked',
      rows: 'not-checked',
    });
    await cp(join(release.directory, 'adapters'), join(directory, 'adapters'), { recursive: true });
    expect(statuses(await verify(directory, changes))).toMatchObject({
      files: 'verified',
      adapters: 'verified',
      plan: 'verified',
      rows: 'not-checked',
    });
    for (const name of ['model.gguf', 'conversion.json']) {
      const path = join(directory, name);
      const bytes = await readFile(path);
      await writeFile(path, Buffer.concat([bytes, Buffer.from(' ')]));
      expect(await complaints(directory, changes)).toContain(name);
      await writeFile(path, bytes);
    }
  });
});

describe('a release that was tampered with', () => {
  const FILES = [
    'model-00001-of-00002.safetensors',
    'model-00002-of-00002.safetensors',
    'model.safetensors.index.json',
    'config.json',
    'weldline.json',
    'release.json',
    'provenance.intoto.json',
    'model.sig',
    'bom.cdx.json',
    'README.md',
    'adapters/a/adapter_model.safetensors',
    'adapters/a/adapter_config.json',
  ];

  it('has no file but these', async () => {
    expect((await filesIn(release.directory)).map(({ path }) => path)).toEqual(FILES.toSorted());
  });

  it.each(FILES)('is found by any byte of %s', async (path) => {
    const copy = await copyOf(release);
    const whole = await readFile(join(copy, path));
    for (const at of [0, 0.21, 0.5, 0.83, 1].map((part) => Math.round((whole.length - 1) * part))) {
      const bytes = Buffer.from(whole);
      bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
      await writeFile(join(copy, path), bytes);
      expect(await complaints(copy, { base: undefined }), `byte ${at}`).toContain(path);
    }
    await writeFile(join(copy, path), whole.subarray(0, -1));
    expect(await complaints(copy, { base: undefined })).toContain(path);
  });

  it.each(FILES.filter((path) => path !== 'weldline.json'))('is found without %s', async (path) => {
    const copy = await copyOf(release);
    await rm(join(copy, path));
    expect(await complaints(copy)).toContain(path);
  });

  it.each(['modeling.py', '.hidden', 'adapters/a/extra.bin', 'adapters/z/adapter_config.json'])(
    'is found by a file more: %s',
    async (path) => {
      const copy = await copyOf(unsigned);
      await cp(join(copy, 'config.json'), join(copy, path));
      expect(await complaints(copy, { trust: undefined, base: undefined })).toContain(path);
    },
  );

  it('does not write to terminals by the names of files', async () => {
    const copy = await copyOf(unsigned);
    await writeFile(join(copy, 'a\u001b[2Jb.py'), '');
    const said = await complaints(copy, { trust: undefined, base: undefined });
    expect(said).toContain('a\ufffd[2Jb.py');
    expect(said).not.toContain('\u001b');
  });

  it('leads nowhere by the ids of adapters', async () => {
    const copy = await copyOf(unsigned);
    for (const name of ['release.json', 'provenance.intoto.json', 'bom.cdx.json']) {
      await rm(join(copy, name));
    }
    const path = join(copy, 'weldline.json');
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace('"id": "a"', '"id": "../../a"'));
    await rm(join(copy, 'adapters'), { recursive: true });
    const said = await complaints(copy, { trust: undefined, base: unsigned.base });
    expect(said).toContain('"../../a", which is no id of an adapter');
  });

  it('is found by a file that has another name', async () => {
    const copy = await copyOf(unsigned);
    await rename(join(copy, 'README.md'), join(copy, 'readme.md'));
    const said = await complaints(copy, { trust: undefined, base: undefined });
    expect(said).toMatch(/missing: README\.md; there, and listed nowhere: readme\.md/);
  });

  /** What somebody would change who knows that there are digests, but has no key. */
  it.each([
    ['the run', { run: { workflowId: 'mine', runId: 'b7f2' } }, 'the run'],
    ['the engine', { engine: { version: '9.9.9', format: 1 } }, 'the engine'],
    ['the options', { options: { dtype: 'float16' } }, 'the options'],
    ['the plan', { plan: '0'.repeat(64) }, 'the plan'],
    ['the name', { artefact: 'another' }, 'the name of the artefact'],
    ['the inputs', { inputs: [] }, 'the inputs'],
    [
      'the list of files',
      { files: [{ path: 'config.json', size: 1, sha256: '0'.repeat(64) }] },
      'config.json',
    ],
  ])('is found by what release.json says of %s, unsigned too', async (_, change, message) => {
    const copy = await copyOf(unsigned);
    const path = join(copy, 'release.json');
    const said = { ...JSON.parse(await readFile(path, 'utf8')), ...change };
    await writeFile(path, `${JSON.stringify(said, null, 2)}\n`);
    const found = await complaints(copy, { trust: undefined, base: undefined });
    expect(found).toContain(message);
    expect(found).toContain('release.json');
  });

  it('is found where the whole was made consistent, by the values', async () => {
    const copy = await copyOf(unsigned);
    const other = await publishRelease(await temporaryDirectory(), {
      combination: { method: 'linear' },
      isSigned: false,
    });
    const name = 'model-00001-of-00002.safetensors';
    const from = release.manifest.files.find(({ path }) => path === name)?.sha256 ?? '';
    const to = other.manifest.files.find(({ path }) => path === name)?.sha256 ?? '';
    await cp(join(other.directory, name), join(copy, name));
    await rm(join(copy, 'bom.cdx.json'));
    await rm(join(copy, 'provenance.intoto.json'));
    await rm(join(copy, 'release.json'));
    const manifest = join(copy, 'weldline.json');
    await writeFile(manifest, (await readFile(manifest, 'utf8')).replaceAll(from, to));
    const verified = await verify(copy, { trust: undefined, base: unsigned.base });
    expect(statuses(verified)).toMatchObject({
      files: 'verified',
      plan: 'verified',
      rows: 'failed',
    });
  });

  it('is found by another key and another base', async () => {
    const stranger = await verify(release.directory, { trust: { publicKey: unsigned.publicKey } });
    expect(claimOf(stranger, 'signature')).toMatchObject({
      status: 'failed',
      code: 'attest.signature-invalid',
    });
    const based = await verify(release.directory, { base: join(release.directory, 'adapters') });
    expect(claimOf(based, 'plan')).toMatchObject({
      status: 'failed',
      code: 'verify.digest-mismatch',
      text: expect.stringContaining('is not the base that was merged'),
    });
  });
});
