import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { mergeDirectories, readFiles, writeFiles } from '../../doubles/merge-directories.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  baseFiles,
  randomTensor,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import type { SmallDiskReport } from './merge-on-small-disk.ts';

const SCRIPT = fileURLToPath(new URL('./merge-on-small-disk.ts', import.meta.url));

/** Ordinary users may mount in a user namespace of their own. */
const UNSHARE = process.geteuid?.() === 0 ? ['--mount'] : ['--mount', '--map-root-user'];

/** The first shard holds the embeddings, the layers and one of the large tensors. */
const SHARD_BYTES_MIN = 100_000;

test('a disk that fills up stops the merge, which goes on once there is room', async () => {
  const root = await temporaryDirectory();
  const base = tinyBase();
  const random = new Random(5);
  // 30 MB, of which the last shard gets two thirds.
  for (const name of ['first', 'second', 'third']) {
    base.tensors.push(randomTensor(random, `model.${name}.weight`, 'BF16', [5000, 1000]));
  }
  base.shards = 2;
  const directories = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  await writeFiles(directories.base, baseFiles(base));
  await writeFiles(directories.adapter, adapterFiles(tinyAdapter()));
  const disk = join(root, 'disk');
  await mkdir(disk);

  const { base: basePath, adapter } = directories;
  const command = [...UNSHARE, process.execPath, SCRIPT, basePath, adapter, disk];
  const report = JSON.parse(
    execFileSync('unshare', command, { encoding: 'utf8' }),
  ) as SmallDiskReport;
  expect(report.refused).toMatch(/^disk\.full: .*disk.* has \d+ MB free and \d+ MB are needed/);
  expect(report.interrupted).toMatch(/^disk\.full: The disk is full: .*\/disk\/.*Free space/);
  expect(report.interrupted.length).toBeLessThan(600);
  expect(report.leftBehind).toEqual([expect.stringMatching(/^\.output\.weldline-/), 'filler']);
  expect(report.finishedFiles).toEqual([]);
  // The first shard, of a third of the bytes, was kept.
  expect(report.bytesResumed).toBeGreaterThan(SHARD_BYTES_MIN);

  const output = join(root, 'undisturbed');
  await mergeDirectories({ ...directories, output });
  const digests: Record<string, string> = {};
  for (const [name, bytes] of await readFiles(output)) {
    if (!name.endsWith('.safetensors')) continue;
    digests[name] = createHash('sha256').update(bytes).digest('hex');
  }
  expect(report.digests).toEqual(digests);
});
