import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { extractGitBundle } from '../../tools/extract-git-bundle.ts';
import { LLAMA_CPP_COMMIT } from '../../tools/llama-cpp-release.ts';
import { testLlamaCpp } from './test-tools.ts';

let home: string;
let original: string;
let bytes: Buffer;
beforeAll(async () => {
  const { modules = '' } = await testLlamaCpp();
  original = join(modules, 'node-llama-cpp', 'llama', 'gitRelease.bundle');
  bytes = await readFile(original);
  home = await mkdtemp(join(tmpdir(), 'weldline-bundle-'));
});
afterAll(async () => {
  await rm(home, { recursive: true });
});

async function extract(
  bundle: string,
  commit = LLAMA_CPP_COMMIT,
  paths = ['LICENSE', 'ggml/cmake'],
) {
  const directory = await mkdtemp(join(home, 'to-'));
  const extracting = extractGitBundle({ bundle, commit, directory, paths });
  await extracting.catch(async () => expect(await readdir(directory)).toEqual([]));
  await extracting;
  return directory;
}

it('extracts files and folders, and nothing else', async () => {
  const directory = await extract(original);
  expect((await readdir(directory)).sort()).toEqual(['LICENSE', 'ggml']);
  expect(await readdir(join(directory, 'ggml'))).toEqual(['cmake']);
  expect(await readFile(join(directory, 'LICENSE'), 'utf8')).toMatch(/^MIT License/);
});

it.each<[name: string, damage: () => Buffer, message: RegExp]>([
  ['another file', () => Buffer.from('safetensors'), /does not begin as one/],
  ['a newer bundle', () => Buffer.from('# v3 git bundle\n\nPACK'), /does not begin as one/],
  ['one that ends early', () => bytes.subarray(0, 20_000_000), /is not the git bundle of commit/],
  [
    'one with another byte',
    () => {
      const copy = Buffer.from(bytes);
      copy[500_000] = (copy[500_000] ?? 0) ^ 1;
      return copy;
    },
    /is not the git bundle of commit/,
  ],
  [
    'one that claims too much',
    () => {
      const copy = Buffer.from(bytes.subarray(0, 1000));
      copy.writeUInt32BE(2 ** 31, copy.indexOf('PACK') + 8);
      return copy;
    },
    /claims to hold 2147483648 objects/,
  ],
])('refuses %s', async (_, damage, message) => {
  const path = join(home, 'damaged.bundle');
  await writeFile(path, damage());
  await expect(extract(path)).rejects.toMatchObject({
    code: 'tool.install-failed',
    message: expect.stringMatching(message),
  });
});

it('refuses another commit, and a path that the commit lacks', async () => {
  await expect(extract(original, '0'.repeat(40))).rejects.toMatchObject({
    message: expect.stringContaining(`it has no commit ${'0'.repeat(40)}`),
  });
  await expect(extract(original, LLAMA_CPP_COMMIT, ['LICENSE', 'missing'])).rejects.toMatchObject({
    message: expect.stringContaining('the commit has no missing'),
  });
});
