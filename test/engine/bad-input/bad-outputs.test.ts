import { truncateSync } from 'node:fs';
import {
  appendFile,
  chmod,
  mkdir,
  readdir,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { ErrorCode } from '../../../engine/errors.ts';
import {
  type Directories,
  mergeDirectories,
  planDirectories,
  writeFiles,
} from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';
import { expectError, expectNoResult } from './expect-refusal.ts';

/** An account without rights that every Linux and macOS system has. */
const NOBODY = 65_534;

async function soundInputs(root: string): Promise<Directories> {
  const directories = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  const base = tinyBase({ shards: 2 });
  base.files['tokenizer.json'] = '{"version":"1.0"}';
  await writeFiles(directories.base, baseFiles(base));
  await writeFiles(directories.adapter, adapterFiles(tinyAdapter()));
  return directories;
}

async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe('an output that', () => {
  test.each<[string, ErrorCode, string, string[]]>([
    ['is the base', 'output.inside-input', 'base', ['/base']],
    ['lies in the base', 'output.inside-input', 'base/merged', ['/base/merged', '/base,']],
    ['lies deep in the adapter', 'output.inside-input', 'adapter/x/y', ['/adapter/x/y']],
    ['lies in the base by another name', 'output.inside-input', 'link/merged', ['/link/merged']],
  ])('%s', async (_what, code, place, names) => {
    const root = await temporaryDirectory();
    const inputs = await soundInputs(root);
    await symlink('base', join(root, 'link'));
    const before = await readdir(root, { recursive: true });
    const output = join(root, place);
    expectError(await failureOf(mergeDirectories({ ...inputs, output })), code, names);
    expect(await readdir(root, { recursive: true })).toEqual(before);
  });

  test('is a file', async () => {
    const root = await temporaryDirectory();
    const output = join(root, 'output');
    await writeFile(output, 'precious');
    const merge = mergeDirectories({ ...(await soundInputs(root)), output });
    expectError(await failureOf(merge), 'output.exists', [output, 'a file']);
  });

  test('holds other files', async () => {
    const root = await temporaryDirectory();
    const output = join(root, 'output');
    await mkdir(output);
    await writeFile(join(output, 'notes.txt'), 'precious');
    const merge = mergeDirectories({ ...(await soundInputs(root)), output });
    expectError(await failureOf(merge), 'output.exists', [output, 'other files']);
    expect(await readdir(output)).toEqual(['notes.txt']);
  });

  test('holds a damaged manifest', async () => {
    const root = await temporaryDirectory();
    const output = join(root, 'output');
    await mkdir(output);
    await writeFile(join(output, 'weldline.json'), '{"format":"weldline.merge"');
    const merge = mergeDirectories({ ...(await soundInputs(root)), output });
    expectError(await failureOf(merge), 'output.exists', [output]);
  });

  test('holds another merge', async () => {
    const root = await temporaryDirectory();
    const output = join(root, 'output');
    const inputs = await soundInputs(root);
    await mergeDirectories({ ...inputs, output });
    const other = mergeDirectories({ ...inputs, output, options: { dtype: 'float32' } });
    expectError(await failureOf(other), 'output.exists', [output, 'another merge']);
  });

  test('is an empty directory is used', async () => {
    const root = await temporaryDirectory();
    const output = join(root, 'output');
    await mkdir(output);
    await mergeDirectories({ ...(await soundInputs(root)), output });
    expect(await readdir(output)).toContain('weldline.json');
    expect((await readdir(root)).sort()).toEqual(['adapter', 'base', 'output']);
  });

  test('may not be written', async () => {
    const root = await temporaryDirectory();
    const inputs = await soundInputs(root);
    const plan = await planDirectories(inputs);
    const locked = join(root, 'locked');
    await mkdir(locked);
    await chmod(root, 0o755);
    await chmod(locked, 0o555);
    if (process.geteuid?.() === 0) {
      // Root may write anywhere, so the merge runs as somebody else.
      process.seteuid?.(NOBODY);
      onTestFinished(() => process.seteuid?.(0));
    }
    const output = join(locked, 'output');
    const merge = mergeDirectories({ ...inputs, output, plan });
    expectError(await failureOf(merge), 'output.not-writable', [locked, 'EACCES']);
    expect(await readdir(locked)).toEqual([]);
  });
});

describe('inputs that change between plan and merge', () => {
  const weights = 'base/model-00002-of-00002.safetensors';
  test.each<[string, ErrorCode, string, (path: string) => Promise<void>]>([
    ['a shard is cut', 'merge.input-changed', weights, (path) => truncate(path, 5000)],
    ['a shard grows', 'merge.input-changed', weights, (path) => appendFile(path, 'x')],
    ['a shard goes away', 'source.not-found', weights, (path) => rm(path)],
    [
      'the adapter is cut',
      'merge.input-changed',
      'adapter/adapter_model.safetensors',
      (path) => truncate(path, 3000),
    ],
    [
      'the tokenizer is another',
      'merge.input-changed',
      'base/tokenizer.json',
      (path) => writeFile(path, '{"version":"2.0"}'),
    ],
    ['the tokenizer goes away', 'source.not-found', 'base/tokenizer.json', (path) => rm(path)],
    [
      'the configuration is another',
      'merge.input-changed',
      'base/config.json',
      (path) => appendFile(path, ' '),
    ],
  ])('%s', async (_what, code, file, change) => {
    const root = await temporaryDirectory();
    const inputs = await soundInputs(root);
    const plan = await planDirectories(inputs);
    await change(join(root, file));
    const output = join(root, 'output');
    expectError(await failureOf(mergeDirectories({ ...inputs, output, plan })), code, [file]);
    await expectNoResult(root, output);
  });

  test('a shard that shrinks while it is read', async () => {
    const root = await temporaryDirectory();
    const inputs = await soundInputs(root);
    const output = join(root, 'output');
    const merge = mergeDirectories({
      ...inputs,
      output,
      windowBytes: 4096,
      // Sizes have been checked when a shard reports for the first time.
      onProgress: ({ shard }) => {
        if (weights.endsWith(shard)) truncateSync(join(root, weights), 2000);
      },
    });
    expectError(await failureOf(merge), 'merge.input-changed', [weights]);
    await expectNoResult(root, output);
  });
});

test('read-only inputs are copied, and the copies may be written', async () => {
  const root = await temporaryDirectory();
  const inputs = await soundInputs(root);
  await chmod(join(inputs.base, 'tokenizer.json'), 0o444);
  const output = join(root, 'output');
  await chmod(root, 0o777);
  if (process.geteuid?.() === 0) {
    // For root a read-only file is writable.
    process.seteuid?.(NOBODY);
    onTestFinished(() => process.seteuid?.(0));
  }
  await mergeDirectories({ ...inputs, output });
  await appendFile(join(output, 'tokenizer.json'), ' ');
});
