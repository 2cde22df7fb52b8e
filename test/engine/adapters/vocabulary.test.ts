import { describe, expect, test } from 'vitest';
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
const SAVED_COPY = 'lm_head.modules_to_save.weight';
const random = new Random(11);

function add(model: TinyModel, name: string, ...shape: number[]): void {
  model.tensors.push(randomTensor(random, `base_model.model.${name}`, 'BF16', shape));
}

/** A tiny adapter with whole tensors of some rows, by their names. */
function adapterWith(rows: Readonly<Record<string, number>>): TinyModel {
  const adapter = tinyAdapter();
  for (const [name, count] of Object.entries(rows)) add(adapter, name, count, 64);
  return adapter;
}

/** A tokenizer.json whose highest id is this one. */
function tokenizer(highest: number, added = highest): string {
  const vocab = Object.fromEntries(Array.from({ length: highest + 1 }, (_, id) => [`t${id}`, id]));
  return JSON.stringify({ model: { type: 'BPE', vocab }, added_tokens: [{ id: added }] });
}

test.each([
  ['as PEFT saves resized embeddings', [EMBEDDING, HEAD]],
  ['beside LoRA', ['model.embed_tokens.base_layer.weight', 'lm_head.base_layer.weight']],
  ['beside rows', ['model.embed_tokens.token_adapter.base_layer.weight', HEAD]],
  ['live', ['model.embed_tokens.modules_to_save.default.weight', HEAD]],
])('a vocabulary of other rows, %s', async (_what, [embedding = '', head = '']) => {
  for (const rows of [103, 96]) {
    const plan = await planFor(tinyBase(), adapterWith({ [embedding]: rows, [head]: rows }));
    for (const name of [EMBEDDING, HEAD]) {
      const { shape, byteLength, from } = tensorOf(plan, name);
      expect({ shape, byteLength }).toEqual({ shape: [rows, 64], byteLength: rows * 128 });
      expect(from.input).toBe('a');
    }
    expect(plan.configEdits).toEqual([{ path: ['vocab_size'], value: rows }]);
    expect(plan.warnings).toEqual([expect.stringMatching(/no tokenizer.json/)]);
  }
});

test.each(['model.embed_tokens.base_layer.weight', 'lm_head.base_layer.weight', EMBEDDING])(
  'a tied pair that grew and was saved once, as %s, stays that one tensor',
  async (name) => {
    const plan = await planFor(tinyBase({ tied: true }), adapterWith({ [name]: 103 }));
    expect(tensorOf(plan, EMBEDDING)).toMatchObject({ shape: [103, 64], from: { input: 'a' } });
    const names = plan.shards.flatMap(({ tensors }) => tensors.map((tensor) => tensor.name));
    expect(names).not.toContain(HEAD);
    expect(plan.configEdits).toEqual([{ path: ['vocab_size'], value: 103 }]);
  },
);

test('LoRA and trained rows of a vocabulary that grew are those of the adapter', async () => {
  const adapter = adapterWith({
    'model.embed_tokens.token_adapter.base_layer.weight': 103,
    'lm_head.base_layer.weight': 103,
  });
  adapter.config['trainable_token_indices'] = [102];
  add(adapter, 'model.embed_tokens.token_adapter.trainable_tokens_delta', 1, 64);
  add(adapter, 'lm_head.lora_A.weight', 4, 64);
  add(adapter, 'lm_head.lora_B.weight', 103, 4);
  const plan = await planFor(tinyBase(), adapter);
  expect(tensorOf(plan, EMBEDDING).tokens?.[0]?.indices).toEqual([102]);
  expect(tensorOf(plan, HEAD).deltas?.[0]?.b?.shape).toEqual([103, 4]);
});

describe('a vocabulary that is refused', () => {
  const expectRefusal = async (
    base: TinyModel,
    adapter: TinyModel,
    code: string,
    message: RegExp,
  ): Promise<void> => {
    await expect(planFor(base, adapter)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  };

  test('grew on one side alone', async () => {
    const message = /103 rows: .*embed_tokens.*"lm_head.weight" has 100 rows/;
    const adapter = adapterWith({ [EMBEDDING]: 103 });
    await expectRefusal(tinyBase(), adapter, 'adapter.shape-mismatch', message);
  });

  test('grew by different numbers', async () => {
    const adapter = adapterWith({ [EMBEDDING]: 103, [HEAD]: 104 });
    await expectRefusal(tinyBase(), adapter, 'adapter.shape-mismatch', /has 104 rows/);
  });

  test('grew in a tied pair of which one side was trained and the other not saved', async () => {
    const adapter = adapterWith({ [EMBEDDING]: 103 });
    adapter.config['modules_to_save'] = ['embed_tokens'];
    const message = /"lm_head.weight" has no rows/;
    await expectRefusal(tinyBase({ tied: true }), adapter, 'adapter.shape-mismatch', message);
  });

  test('leaves the bias of the head behind', async () => {
    const base = tinyBase();
    base.tensors.push(randomTensor(random, 'lm_head.bias', 'BF16', [100]));
    const adapter = adapterWith({ [EMBEDDING]: 103, [HEAD]: 103 });
    await expectRefusal(base, adapter, 'adapter.shape-mismatch', /"lm_head.bias" has 100 rows/);
  });

  test('has another width', async () => {
    const adapter = tinyAdapter();
    add(adapter, EMBEDDING, 103, 60);
    const message = /\[100, 64\].*\[103, 60\]/;
    await expectRefusal(tinyBase(), adapter, 'adapter.shape-mismatch', message);
  });

  test('is that of other LoRA factors', async () => {
    const adapter = adapterWith({ [EMBEDDING]: 103, [HEAD]: 103 });
    add(adapter, 'lm_head.lora_A.weight', 4, 64);
    add(adapter, 'lm_head.lora_B.weight', 100, 4);
    const message = /"lm_head".*\[100, 64\].*\[103, 64\]/;
    await expectRefusal(tinyBase(), adapter, 'adapter.shape-mismatch', message);
  });

  test.each([
    ['a token', tokenizer(103)],
    ['an added token', tokenizer(99, 103)],
    ['a token of a list', JSON.stringify({ model: { vocab: new Array(104).fill(['t', 0]) } })],
  ])('has fewer rows than the tokenizer has ids, for %s', async (_what, text) => {
    const adapter = adapterWith({ [EMBEDDING]: 103, [HEAD]: 103 });
    adapter.files['tokenizer.json'] = text;
    adapter.files['tokenizer_config.json'] = '{}';
    const message = /103 rows, but .*adapter\/tokenizer.json has the id 103/;
    await expectRefusal(tinyBase(), adapter, 'adapter.tokenizer-mismatch', message);
  });

  test('was cut below the ids of the base’s tokenizer', async () => {
    const base = tinyBase();
    base.files['tokenizer.json'] = tokenizer(99);
    const adapter = adapterWith({ [EMBEDDING]: 96, [HEAD]: 96 });
    const message = /96 rows, but .*base\/tokenizer.json has the id 99/;
    await expectRefusal(base, adapter, 'adapter.tokenizer-mismatch', message);
  });

  test('comes with a tokenizer that is none', async () => {
    const adapter = adapterWith({ [EMBEDDING]: 103, [HEAD]: 103 });
    adapter.files['tokenizer.json'] = '{"model": 7}';
    adapter.files['tokenizer_config.json'] = '{}';
    const message = /adapter\/tokenizer.json is no tokenizer/;
    await expectRefusal(tinyBase(), adapter, 'checkpoint.config-invalid', message);
  });
});

test('the tokenizer that goes with a changed vocabulary is the adapter’s', async () => {
  const base = tinyBase();
  base.files['tokenizer.json'] = tokenizer(99);
  const adapter = adapterWith({ [EMBEDDING]: 103, [HEAD]: 103 });
  const left = await planFor(base, adapter);
  expect(left.warnings).toEqual([expect.stringMatching(/base's, whose highest id is 99/)]);

  adapter.files['tokenizer.json'] = tokenizer(102);
  adapter.files['tokenizer_config.json'] = '{}';
  const brought = await planFor(base, adapter);
  expect(brought.warnings).toEqual([]);
  const shipped = brought.sideFiles.find(({ path }) => path === 'tokenizer.json');
  expect(shipped?.input).toBe('a');
});

test('modules_to_save that is saved twice, as by PEFT with its embeddings, counts once', async () => {
  const adapter = adapterWith({ [SAVED_COPY]: 100, [HEAD]: 100 });
  add(adapter, 'lm_head.original_module.weight', 100, 64);
  await expect(planFor(tinyBase(), adapter)).rejects.toMatchObject({
    code: 'adapter.duplicate-key',
    message: expect.stringMatching(/lm_head.modules_to_save.weight.*lm_head.weight.*differ/),
  });
  const [first, second] = [SAVED_COPY, HEAD].map((name) => `base_model.model.${name}`);
  const data = adapter.tensors.find(({ name }) => name === first)?.data;
  alter(adapter, second ?? '', { data: Uint8Array.from(data ?? []) });
  expect(tensorOf(await planFor(tinyBase(), adapter), HEAD).from.input).toBe('a');
});

test('a weight before its training without the trained one is half of a file', async () => {
  const adapter = adapterWith({ 'lm_head.original_module.weight': 100 });
  await expect(planFor(tinyBase(), adapter)).rejects.toMatchObject({ code: 'adapter.half-pair' });
});
