/** Experts that lie one by one in several files, and an adapter that has them fused. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { MergeOptions } from '../../../engine/plan/plan.ts';
import { mergeDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { fusedExpertsAdapter, tinyExperts } from '../../doubles/tiny-experts.ts';
import { adapterFiles, baseFiles } from '../../doubles/tiny-model.ts';
import { verifyAllRows } from '../../doubles/verify-all-rows.ts';
import { type LoadedTensor, loadTensors } from '../../golden/golden-case.ts';

async function merge(shards: number): Promise<ReadonlyMap<string, LoadedTensor>> {
  const root = await temporaryDirectory();
  const [base, adapter, output] = [join(root, 'base'), join(root, 'a'), join(root, 'merged')];
  await writeFiles(base, baseFiles({ ...tinyExperts(), shards }));
  await writeFiles(adapter, adapterFiles(fusedExpertsAdapter()));
  const options: MergeOptions = { shardBytesMax: 1e9 };
  const { plan } = await mergeDirectories({ base, adapter, output, options });
  await verifyAllRows(plan, { base, a: adapter }, output);
  return loadTensors(output, ['model.safetensors']);
}

test('the experts are the same in however many files', async () => {
  const one = await merge(1);
  // The second file begins in the middle of an expert.
  const three = await merge(3);
  expect(one.size).toBe(12);
  expect([...three.keys()].sort()).toEqual([...one.keys()].sort());
  for (const [name, { bytes }] of one) {
    expect(Buffer.compare(bytes, three.get(name)!.bytes), name).toBe(0);
  }
});
