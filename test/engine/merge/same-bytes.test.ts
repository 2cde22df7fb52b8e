import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  mergeDirectories,
  planDirectories,
  readFiles,
  writeFiles,
} from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  baseFiles,
  type FloatName,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';

const MANNERS = [
  { threads: 1, windowBytes: 4 * 1024 * 1024 },
  { threads: 2, windowBytes: 4096 },
  { threads: 4, windowBytes: 16_384 },
];

test.each<[FloatName, 'bfloat16' | 'float16' | 'float32' | undefined]>([
  ['BF16', undefined],
  ['F16', 'bfloat16'],
  ['BF16', 'float32'],
  ['F32', 'float16'],
])('%s, made %s: threads and windows make no difference', async (dtype, to) => {
  const root = await temporaryDirectory();
  const inputs = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  const targets = ['self_attn.q_proj', 'self_attn.k_proj', 'mlp.down_proj'] as const;
  await writeFiles(inputs.base, baseFiles(tinyBase({ dtype, shards: 2 })));
  await writeFiles(inputs.adapter, adapterFiles(tinyAdapter({ targets, rank: 5 })));
  const plan = await planDirectories(inputs, to === undefined ? {} : { dtype: to });
  const results = [];
  for (const [index, manner] of MANNERS.entries()) {
    const output = join(root, `output-${index}`);
    await mergeDirectories({ ...inputs, plan, output, ...manner });
    results.push(await readFiles(output));
  }
  for (const result of results) expect(result).toEqual(results[0]);
  expect(results[0]?.size).toBe(5);
});
