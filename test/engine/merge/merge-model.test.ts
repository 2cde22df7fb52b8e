import { execFileSync } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parseManifest } from '../../../engine/manifest.ts';
import { PAGE_BYTES } from '../../../engine/merge/windows.ts';
import { readCheckpoint } from '../../../engine/safetensors/checkpoint.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { mergeDirectories, readFiles, writeFiles } from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  baseFiles,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';

const MERGE_CHILD = fileURLToPath(new URL('../../crash/merge-child.ts', import.meta.url));

async function directoriesFor(base: TinyModel, adapter: TinyModel) {
  const root = await temporaryDirectory();
  const inputs = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  await writeFiles(inputs.base, baseFiles(base));
  await writeFiles(inputs.adapter, adapterFiles(adapter));
  return { ...inputs, root, output: join(root, 'output') };
}

test('a merge has the base’s files, an honest manifest, and passes its verification', async () => {
  const directories = await directoriesFor(tinyBase({ shards: 3 }), tinyAdapter());
  const { plan, manifest } = await mergeDirectories(directories);
  const { output, base, adapter } = directories;
  const files = await openModelDirectory(output);
  expect([...files.sizes.keys()]).toEqual([...(await readdir(base)).sort(), 'weldline.json']);
  const text = await readFile(join(output, 'weldline.json'), 'utf8');
  expect(parseManifest(text, 'weldline.json')).toEqual(manifest);
  expect(manifest.tensors).toEqual({ total: 19, merged: 4, replaced: 0 });
  expect(text).not.toContain(directories.root);
  const recompute = { plan, roots: { base, a: adapter } };
  const verification = await verifyMerge({ directory: output, files, recompute });
  expect(verification).toMatchObject({ filesChecked: 5, tensorsChecked: 19, rowsRecomputed: 12 });
  expect(verification.worstRounding).toBeLessThanOrEqual(1.01);
});

test('shards of another size and dtype are one checkpoint', async () => {
  const directories = await directoriesFor(tinyBase(), tinyAdapter());
  const options = { dtype: 'float32', shardBytesMax: 100_000 } as const;
  const { plan } = await mergeDirectories({ ...directories, options });
  expect(plan.shards.length).toBeGreaterThan(3);
  const checkpoint = await readCheckpoint(await openModelDirectory(directories.output));
  expect(checkpoint.tensors.size).toBe(19);
  for (const tensor of checkpoint.tensors.values()) expect(tensor.dtype).toBe('F32');
  const config = JSON.parse(await readFile(join(directories.output, 'config.json'), 'utf8'));
  expect(config['torch_dtype']).toBe('float32');
});

test('tensors with names that objects have already are kept', async () => {
  const base = tinyBase();
  for (const name of ['__proto__', 'constructor', '0']) {
    base.tensors.push({ name, dtype: 'U8', shape: [3], data: new Uint8Array([1, 2, 3]) });
  }
  const directories = await directoriesFor(base, tinyAdapter());
  await mergeDirectories(directories);
  const written = await readFiles(directories.output);
  const files = await openModelDirectory(directories.output);
  const { tensors } = await readCheckpoint(files);
  for (const name of ['__proto__', 'constructor', '0']) {
    const { offset = 0, byteLength = 0 } = tensors.get(name) ?? {};
    const bytes = written.get('model.safetensors')?.subarray(offset, offset + byteLength);
    expect([...(bytes ?? [])], name).toEqual([1, 2, 3]);
  }
});

test('merging again finds the finished merge', async () => {
  const directories = await directoriesFor(tinyBase(), tinyAdapter());
  expect((await mergeDirectories(directories)).existed).toBe(false);
  expect((await mergeDirectories(directories)).existed).toBe(true);
});

test('a merge that another process finishes meanwhile is found', async () => {
  const directories = await directoriesFor(tinyBase({ shards: 2 }), tinyAdapter());
  const { base, adapter, output } = directories;
  let isOvertaken = false;
  const result = await mergeDirectories({
    ...directories,
    windowBytes: PAGE_BYTES,
    onProgress: ({ bytesDone, bytesTotal }) => {
      if (isOvertaken || bytesDone < bytesTotal / 4) return;
      isOvertaken = true;
      execFileSync(process.execPath, [MERGE_CHILD, base, adapter, output, '2']);
    },
  });
  expect(isOvertaken).toBe(true);
  expect(result.existed).toBe(true);
  expect(await readdir(directories.root)).toEqual(['adapter', 'base', 'output']);
  await verifyMerge({ directory: output, files: await openModelDirectory(output) });
});

test('an aborted merge stops with the reason and leaves no output', async () => {
  const directories = await directoriesFor(tinyBase(), tinyAdapter());
  const signal = AbortSignal.abort(new Error('stopped by hand'));
  await expect(mergeDirectories({ ...directories, signal })).rejects.toThrow('stopped by hand');
  expect(await readdir(directories.root)).not.toContain('output');
});
