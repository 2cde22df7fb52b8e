import { expect, test } from 'vitest';
import { Random } from '../../doubles/random.ts';
import { randomTensor, type TinyModel, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';
import { planFor, tensorOf } from './plan-tiny.ts';

const EMBEDDING = 'model.embed_tokens.weight';
const HEAD = 'lm_head.weight';

/** A tiny adapter that also has LoRA on the embedding, of rank 4. */
function embeddingAdapter(suffix = ''): TinyModel {
  const adapter = tinyAdapter();
  const random = new Random(9);
  const stem = 'base_model.model.model.embed_tokens.lora_embedding_';
  adapter.tensors.push(randomTensor(random, `${stem}A${suffix}`, 'F32', [4, 100]));
  adapter.tensors.push(randomTensor(random, `${stem}B${suffix}`, 'F32', [64, 4]));
  return adapter;
}

test.each([false, true])(
  'LoRA on an embedding is added transposed, with fan_in_fan_out: %s',
  async (flag) => {
    const adapter = embeddingAdapter();
    const base = tinyBase();
    if (flag) {
      // The flag speaks of layers, and here of none.
      adapter.tensors = adapter.tensors.slice(-2);
      Object.assign(adapter.config, { fan_in_fan_out: true, target_modules: ['embed_tokens'] });
    }
    const plan = await planFor(base, adapter);
    const { deltas, shape } = tensorOf(plan, EMBEDDING);
    const [delta] = deltas ?? [];
    expect(delta).toMatchObject({ transposed: true, rank: 4, scaling: 2 });
    expect(shape).toEqual([100, 64]);
    expect(tensorOf(plan, HEAD).deltas).toBeUndefined();
    expect(plan.configEdits).toEqual([]);
    expect(plan.warnings).toEqual([]);
  },
);

test('LoRA on an embedding, saved live', async () => {
  const adapter = embeddingAdapter('.default');
  for (const tensor of adapter.tensors) {
    Object.assign(tensor, { name: tensor.name.replace(/\.weight$/, '.default.weight') });
  }
  const plan = await planFor(tinyBase(), adapter);
  expect(tensorOf(plan, EMBEDDING).deltas?.[0]?.transposed).toBe(true);
});

test('LoRA on a tied embedding leaves the head as it was', async () => {
  const plan = await planFor(tinyBase({ tied: true }), embeddingAdapter());
  const [embedding, head] = [tensorOf(plan, EMBEDDING), tensorOf(plan, HEAD)];
  expect(embedding.deltas).toBeDefined();
  expect(head.deltas).toBeUndefined();
  expect(head.from).toEqual(embedding.from);
  expect(plan.configEdits).toEqual([{ path: ['tie_word_embeddings'], value: false }]);
  expect(plan.warnings.join()).toMatch(/tied/);
});

test('an untrained embedding, whose A is zero, is a warning', async () => {
  const adapter = embeddingAdapter();
  adapter.tensors.find(({ name }) => name.includes('lora_embedding_A'))?.data.fill(0);
  const plan = await planFor(tinyBase(), adapter);
  expect(plan.warnings).toEqual([
    expect.stringMatching(/does not change 1 of its 5 modules: .*lora_embedding_A is zero/),
  ]);
});
