import { describe, expect, it } from 'vitest';
import { mergeOptionsOf, optionTexts } from '../../engine/manifest-options.ts';
import type { CombinationMethod } from '../../engine/plan/combination.ts';
import { type MergeOptions, planDigest } from '../../engine/plan/plan.ts';
import { planMerge } from '../../engine/plan/plan-merge.ts';
import { memoryFiles } from '../doubles/memory-files.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../doubles/tiny-model.ts';

const base = memoryFiles('base', baseFiles(tinyBase()));
const ADAPTERS = [2, 3].map((seed) => memoryFiles('adapter', adapterFiles(tinyAdapter({ seed }))));

/** Plans, and plans again with what the manifest of the plan says; the digests of both. */
async function planTwice(options: MergeOptions, names: readonly string[]): Promise<string[]> {
  const adapters = names.map((id, index) => ({ id, ...(ADAPTERS[index] ?? base) }));
  const plan = await planMerge(base, adapters, options);
  const ids = plan.inputs.slice(1).map(({ id }) => id);
  // As they are read back from JSON, in the order of the manifest, which is all that is left.
  const texts = JSON.parse(JSON.stringify(optionTexts(plan.options)));
  const inOrder = ids.flatMap((id) => adapters.find((adapter) => adapter.id === id) ?? []);
  const again = await planMerge(base, inOrder, mergeOptionsOf(texts, ids));
  // Warnings name methods as they were asked for.
  return [plan, again].map((each) => planDigest({ ...each, warnings: [] }));
}

describe('the options of a manifest', () => {
  it.each<[string, MergeOptions]>([
    ['nothing', {}],
    ['all that needs no combination', { dtype: 'float16', shardBytesMax: 50_000 }],
    ['a choice of weights', { mergeOnto: 'simulated_nf4' }],
    ['a weight', { combination: { method: 'linear', weights: [0.1] } }],
  ])('plan again with %s', async (_, options) => {
    const [first, again] = await planTwice(options, ['a']);
    expect(again).toBe(first);
  });

  it.each<[CombinationMethod, Omit<NonNullable<MergeOptions['combination']>, 'method'>]>([
    ['linear', { weights: [1, -0.3333333333333333] }],
    ['cat', {}],
    ['sequential', {}],
    ['svd', { parameters: { rank: 3 } }],
    ['ties', { weights: [1, 0.5], parameters: { density: 0.3, majoritySign: 'frequency' } }],
    ['dare_linear', { parameters: { density: [0.2, 0.7], seed: 9 } }],
    ['dare_ties', { parameters: { density: 0.5 } }],
    ['magnitude_prune', { parameters: { density: 0.25 } }],
    ['peft_linear', {}],
    ['peft_svd', {}],
    ['peft_cat', { weights: [2, 1] }],
    ['peft_ties', { parameters: { density: 0.5, majoritySign: 'frequency' } }],
    ['peft_magnitude_prune', { parameters: { density: 0.5 } }],
  ])('plan again with %s', async (method, parameters) => {
    for (const second of ['b', 'B']) {
      const combination = { method, ...parameters };
      const [first, again] = await planTwice({ combination }, ['a', second]);
      expect(again, second).toBe(first);
    }
  });

  it.each([
    [{ dtype: 'int8' }],
    [{ combination: 'magic', weights: '1' }],
    [{ combination: 'linear', weights: '1, x' }],
    [{ combination: 'linear' }],
    [{ max_shard_size: 'much' }],
  ])('say so where they are not known: %j', (texts) => {
    expect(() => mergeOptionsOf(texts, ['a'])).toThrow(
      expect.objectContaining({ code: 'manifest.invalid' }),
    );
  });
});
