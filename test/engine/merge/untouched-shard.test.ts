import { chmod, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mergeShard } from '../../../engine/merge/merge-shard.ts';
import { stagingAt } from '../../../engine/merge/output-directory.ts';
import { resourcesFor } from '../../../engine/merge/resources.ts';
import { readCompletion } from '../../../engine/merge/shard-file.ts';
import { findOriginal } from '../../../engine/merge/untouched-shard.ts';
import type { MergeOptions } from '../../../engine/plan/plan.ts';
import { planDigest } from '../../../engine/plan/plan.ts';
import { layoutFile, type TensorSpec } from '../../../engine/safetensors/layout.ts';
import { compileKernel } from '../../../kernels/index.ts';
import { planDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';

/** The same tensors with the header that weldline and the reference implementation write. */
function withCommonHeader(bytes: Uint8Array): Buffer {
  const file = Buffer.from(bytes);
  const dataBegin = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, dataBegin)) as Record<string, TensorSpec>;
  const specs = Object.entries(header).map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  return Buffer.concat([layoutFile(specs).header, file.subarray(dataBegin)]);
}

/** The last of three shards holds the head and the last norm, which the adapter leaves alone. */
async function shardOptions(
  options: MergeOptions,
  alter: (last: Buffer) => void = () => undefined,
) {
  const root = await temporaryDirectory();
  const inputs = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  const base = new Map(baseFiles(tinyBase({ shards: 3 })));
  const name = [...base.keys()].filter((path) => path.endsWith('.safetensors')).sort()[2] ?? '';
  const last = withCommonHeader(base.get(name) ?? new Uint8Array());
  alter(last);
  base.set(name, last);
  await writeFiles(inputs.base, base);
  await writeFiles(inputs.adapter, adapterFiles(tinyAdapter({ targets: ['self_attn.q_proj'] })));
  const plan = await planDirectories(inputs, options);
  const shard = plan.shards.at(-1);
  if (shard === undefined) throw new Error('the plan has no shards');
  expect(shard.tensors.every(({ deltas }) => deltas === undefined)).toBe(true);
  return {
    plan,
    planDigest: planDigest(plan),
    shard,
    roots: { base: inputs.base, a: inputs.adapter },
    directory: stagingAt(join(root, 'staging')),
    resources: resourcesFor(plan, 1, 65_536),
    kernel: await compileKernel(),
  };
}

test('a shard that nothing changes is copied whole, and finished like any other', async () => {
  const options = await shardOptions({});
  const { shard, directory, roots } = options;
  expect((await findOriginal(options))?.path).toBe(join(roots.base, shard.file));
  // As files in a cache may be.
  await chmod(join(roots.base, shard.file), 0o444);
  const result = await mergeShard(options);
  expect(await readdir(directory.files)).toEqual([shard.file]);
  expect((await stat(join(directory.files, shard.file))).mode & 0o777).toBe(0o644);
  const written = await readFile(join(directory.files, shard.file));
  expect(Buffer.compare(written, await readFile(join(roots.base, shard.file)))).toBe(0);
  expect(await readCompletion(shard, directory, options.planDigest)).toEqual(result);
  // And again: found finished.
  expect(await mergeShard(options)).toEqual(result);
});

test('a shard whose header another writer would have written otherwise is written anew', async () => {
  const options = await shardOptions({}, (last) => {
    // No offset moves, so that only the header tells.
    const at = last.indexOf('"format":"pt"');
    expect(at).toBeGreaterThan(0);
    last.write('"format":"np"', at);
  });
  expect(await findOriginal(options)).toBeUndefined();
  await mergeShard(options);
  const written = await readFile(join(options.directory.files, options.shard.file), 'latin1');
  expect(written).toContain('"format":"pt"');
});

test('a cast changes every shard', async () => {
  expect(await findOriginal(await shardOptions({ dtype: 'float32' }))).toBeUndefined();
});
