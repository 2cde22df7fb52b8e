import { expect, test } from 'vitest';
import { Random } from '../../doubles/random.ts';
import {
  alter,
  randomTensor,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { planFor, tensorOf } from './plan-tiny.ts';

const EMBEDDING = 'model.embed_tokens.weight';
const HEAD = 'lm_head.weight';

/** A tiny adapter with rows of modules, one for each index. */
function tokenAdapter(indices: unknown, rows: Readonly<Record<string, number>>): TinyModel {
  const adapter = tinyAdapter();
  adapter.config['trainable_token_indices'] = indices;
  for (const [module, count] of Object.entries(rows)) {
    const name = `base_model.model.${module}`;
    adapter.tensors.push(randomTensor(new Random(7), name, 'F32', [count, 64]));
  }
  return adapter;
}

const ROWS = 'model.embed_tokens.token_adapter.trainable_tokens_delta';
const HEAD_ROWS = 'lm_head.token_adapter.trainable_tokens_delta';

test.each([
  [[98, 99], ROWS],
  [[98, 99], `${ROWS}.default`],
  [{ embed_tokens: [98, 99] }, ROWS],
  [{ 'model.embed_tokens': [98, 99] }, ROWS],
])('rows %j of %s replace those of the embedding', async (indices, name) => {
  const plan = await planFor(tinyBase(), tokenAdapter(indices, { [name]: 2 }));
  const { tokens, from, dtype } = tensorOf(plan, EMBEDDING);
  expect(tokens).toMatchObject([{ indices: [98, 99], from: { input: 'a', shape: [2, 64] } }]);
  expect({ input: from.input, dtype }).toEqual({ input: 'base', dtype: 'BF16' });
  expect(tensorOf(plan, HEAD).tokens).toBeUndefined();
  expect(plan.configEdits).toEqual([]);
  expect(plan.warnings).toEqual([]);
});

test('rows of a tied embedding are rows of the head too: the pair stays tied', async () => {
  const adapter = tokenAdapter([1, 2], { [ROWS]: 2 });
  const plan = await planFor(tinyBase({ tied: true }), adapter);
  expect(tensorOf(plan, EMBEDDING).tokens?.[0]?.indices).toEqual([1, 2]);
  expect(plan.shards.flatMap(({ tensors }) => tensors.map(({ name }) => name))).not.toContain(HEAD);
  expect(plan.configEdits).toEqual([]);

  // A head that is on disk all the same must not say otherwise.
  const stored = tinyBase();
  stored.config['tie_word_embeddings'] = true;
  const both = await planFor(stored, adapter);
  expect(tensorOf(both, HEAD).tokens).toEqual(tensorOf(both, EMBEDDING).tokens);
  expect(both.configEdits).toEqual([]);
});

test('PEFT saves the rows of a tied pair once where both sides are named', async () => {
  const adapter = tokenAdapter({ embed_tokens: [1, 2], lm_head: [1, 2] }, { [ROWS]: 2 });
  const plan = await planFor(tinyBase({ tied: true }), adapter);
  expect(plan.configEdits).toEqual([]);
});

test('other rows of a tied head untie the pair', async () => {
  const adapter = tokenAdapter(
    { embed_tokens: [1, 2], lm_head: [3] },
    { [ROWS]: 2, [HEAD_ROWS]: 1 },
  );
  const plan = await planFor(tinyBase({ tied: true }), adapter);
  expect(tensorOf(plan, EMBEDDING).tokens?.[0]?.indices).toEqual([1, 2]);
  expect(tensorOf(plan, HEAD).tokens?.[0]?.indices).toEqual([3]);
  expect(tensorOf(plan, HEAD).from).toEqual(tensorOf(plan, EMBEDDING).from);
  expect(plan.configEdits).toEqual([{ path: ['tie_word_embeddings'], value: false }]);
});

test.each([[[1, 2]], [{ embed_tokens: [1, 2] }]])(
  'rows of a tied pair that PEFT saved twice and named once, as %j',
  async (indices) => {
    const adapter = tokenAdapter(indices, { [ROWS]: 2, [HEAD_ROWS]: 2 });
    const one = await planFor(tinyBase({ tied: true }), adapter);
    expect(one.configEdits).toEqual([]);
    // Of other values for the head, they are two tensors.
    const rows = adapter.tensors.at(-1)!;
    alter(adapter, rows.name, { data: new Uint8Array(rows.data.length) });
    const plan = await planFor(tinyBase({ tied: true }), adapter);
    expect(plan.configEdits).toEqual([{ path: ['tie_word_embeddings'], value: false }]);
    for (const name of [EMBEDDING, HEAD]) {
      expect(tensorOf(plan, name).tokens?.[0]?.indices).toEqual([1, 2]);
    }
  },
);
