import { expect, test } from 'vitest';
import type { ErrorCode } from '../../../engine/errors.ts';
import type { Combination } from '../../../engine/plan/combination.ts';
import { previewMerge } from '../../../engine/plan/plan-merge.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import { Random } from '../../doubles/random.ts';
import {
  adapterFiles,
  baseFiles,
  randomTensor,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { expectError } from './expect-refusal.ts';

const EMBEDDING = 'model.embed_tokens';
const LINEAR: Combination = { method: 'linear' };
const random = new Random(31);

type Adapters = Readonly<Record<string, TinyModel>>;

/** A tiny adapter that also has these tensors. */
function adapterWith(tensors: Readonly<Record<string, readonly number[]>>): TinyModel {
  const adapter = tinyAdapter();
  for (const [name, shape] of Object.entries(tensors)) {
    adapter.tensors.push(randomTensor(random, `base_model.model.${name}`, 'F32', shape));
  }
  return adapter;
}

function embeddingLora(): TinyModel {
  return adapterWith({
    [`${EMBEDDING}.lora_embedding_A`]: [4, 100],
    [`${EMBEDDING}.lora_embedding_B`]: [64, 4],
  });
}

function savedHead(): TinyModel {
  return adapterWith({ 'lm_head.weight': [100, 64] });
}

function trainedRows(indices: readonly number[] = [5, 7]): TinyModel {
  const rows = `${EMBEDDING}.token_adapter.trainable_tokens_delta`;
  const adapter = adapterWith({ [rows]: [indices.length, 64] });
  adapter.config['trainable_token_indices'] = indices;
  return adapter;
}

function grown(rows: number): TinyModel {
  return adapterWith({ [`${EMBEDDING}.weight`]: [rows, 64], 'lm_head.weight': [rows, 64] });
}

async function preview(adapters: readonly (readonly [string, TinyModel])[], how?: Combination) {
  const inputs = adapters.map(([id, model]) => ({
    id,
    files: memoryFiles(id, adapterFiles(model)).files,
  }));
  const base = memoryFiles('base', baseFiles(tinyBase())).files;
  return previewMerge(base, inputs, { combination: how });
}

async function expectRefused(
  adapters: readonly (readonly [string, TinyModel])[],
  how: Combination | undefined,
  code: ErrorCode,
  names: readonly string[],
): Promise<void> {
  const error = await preview(adapters, how).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expectError(error, code, names);
}

test.each<[string, Adapters, readonly string[]]>([
  ['save the same module', { one: savedHead(), two: savedHead() }, ['lm_head.weight']],
  [
    'train the same rows',
    { one: trainedRows(), two: trainedRows([7, 2, 5]) },
    ['model.embed_tokens.weight', 'trainable_token_indices', '2 rows', ': 5, 7.'],
  ],
  [
    'train rows of an embedding and all of it',
    { one: trainedRows(), two: embeddingLora() },
    ['model.embed_tokens.weight', 'trainable_token_indices', 'adds to it'],
  ],
  [
    'replace an embedding and add to it',
    { one: embeddingLora(), two: adapterWith({ [`${EMBEDDING}.weight`]: [100, 64] }) },
    ['model.embed_tokens.weight', 'modules_to_save', 'adds to it'],
  ],
  [
    'add to rows that DoRA scales',
    { one: doraAdapter(), two: tinyAdapter() },
    ['self_attn.q_proj.weight', 'DoRA'],
  ],
  ['scale the same rows', { one: doraAdapter(), two: doraAdapter() }, ['DoRA']],
  ['change the vocabulary', { one: grown(103), two: grown(103) }, ['vocabulary', '103']],
])('two adapters that %s', async (_what, adapters, names) => {
  const all = ['"one"', '"two"', ...names];
  await expectRefused(Object.entries(adapters), LINEAR, 'adapter.contradiction', all);
  await expectRefused(Object.entries(adapters).reverse(), LINEAR, 'adapter.contradiction', all);
});

const two = [
  ['one', tinyAdapter()],
  ['two', tinyAdapter({ seed: 3 })],
] as const;

test.each<[string, readonly (readonly [string, TinyModel])[], Combination | undefined, string[]]>([
  ['no method', two, undefined, ['combination.method', '--combine', 'linear', 'sequential']],
  ['one id', [two[0], ['one', tinyAdapter()]], LINEAR, ['"one"']],
  ['the id of the base', [two[0], ['base', tinyAdapter()]], LINEAR, ['"base"']],
  ['too few weights', two, { method: 'linear', weights: [1] }, ['1 weights', '2 adapters']],
  ['too many weights', two, { method: 'cat', weights: [1, 1, 1] }, ['3 weights']],
  ['a weight of 0', two, { method: 'linear', weights: [1, 0] }, ['weight 0']],
  ['a weight that is no number', two, { method: 'linear', weights: [1, Number.NaN] }, ['NaN']],
  ['an infinite weight', two, { method: 'linear', weights: [1, Infinity] }, ['Infinity']],
  ['weights in a sequence', two, { method: 'sequential', weights: [1, 1] }, ['sequential']],
  ['no density', two, { method: 'ties' }, ['ties needs a density']],
  ['a density of 0', two, { method: 'ties', parameters: { density: 0 } }, ['density 0', 'share']],
  [
    'a density above 1',
    two,
    { method: 'magnitude_prune', parameters: { density: [0.5, 1.5] } },
    ['density 1.5'],
  ],
  [
    'a density that is no number',
    two,
    { method: 'dare_ties', parameters: { density: Number.NaN } },
    ['density NaN'],
  ],
  [
    'too few densities',
    two,
    { method: 'dare_linear', parameters: { density: [0.5] } },
    ['1 densities', '2 adapters'],
  ],
  [
    'a density for a sum',
    two,
    { method: 'linear', parameters: { density: 0.5 } },
    ['linear takes no density'],
  ],
  [
    'a seed where nothing is random',
    two,
    { method: 'ties', parameters: { density: 0.5, seed: 1 } },
    ['ties', 'no seed'],
  ],
  [
    'a seed that is no whole number',
    two,
    { method: 'dare_ties', parameters: { density: 0.5, seed: 0.5 } },
    ['seed 0.5'],
  ],
  [
    'a sign that is not elected',
    two,
    { method: 'dare_linear', parameters: { density: 0.5, majoritySign: 'total' } },
    ['dare_linear elects no sign'],
  ],
  [
    'more adapters than anyone merges',
    Array.from({ length: 33 }, (_, index) => [`a${index}`, tinyAdapter()] as const),
    LINEAR,
    ['33', '32'],
  ],
  ['no adapters', [], LINEAR, ['at least one']],
])('%s', async (_what, adapters, how, names) => {
  await expectRefused(adapters, how, 'plan.option-invalid', names);
});

test.each(['ties', 'dare_linear', 'dare_ties', 'magnitude_prune'] as const)(
  '%s of an adapter with DoRA, which is more than a delta',
  async (method) => {
    const adapters = [
      ['one', tinyAdapter({ targets: ['mlp.up_proj'] })],
      ['two', doraAdapter()],
    ] as const;
    const how: Combination = { method, parameters: { density: 0.5 } };
    const names = ['"two"', 'DoRA', 'q_proj.weight', method, 'sequential'];
    await expectRefused(adapters, how, 'adapter.contradiction', names);
    // Alone and whole it is what it is without a combination.
    const whole: Combination = { method, parameters: { density: 1 } };
    const alone = [['two', doraAdapter()]] as const;
    expect(await preview(alone, whole)).toEqual(await preview(alone));
  },
);

test('an adapter alone on a tensor is not divided by how many adapters there are', async () => {
  const adapters = [
    ['one', tinyAdapter({ targets: ['mlp.up_proj'] })],
    ['two', tinyAdapter({ targets: ['mlp.up_proj', 'mlp.down_proj'], seed: 3 })],
  ] as const;
  const how: Combination = { method: 'ties', weights: [1, 3], parameters: { density: 1 } };
  const { shards } = await preview(adapters, how);
  const tensors = shards.flatMap((shard) => shard.tensors);
  const both = tensors.find(({ name }) => name.includes('0.mlp.up_proj'));
  const alone = tensors.find(({ name }) => name.includes('0.mlp.down_proj'));
  expect(both?.combination?.parts).toEqual([
    { weight: 1, density: 1 },
    { weight: 3, density: 1 },
  ]);
  // Nobody outvotes it and all of it stays: 3 times its scaling of 2 is added.
  expect(alone?.combination).toBeUndefined();
  expect(alone?.deltas?.map(({ scaling }) => scaling)).toEqual([6]);
});

test.each<[string, TinyModel, string]>([
  ['DoRA', doraAdapter(), 'q_proj.weight'],
  ['a saved module', savedHead(), 'lm_head.weight'],
  ['trained rows', trainedRows(), 'embed_tokens.weight'],
])('a weight for %s, which is not added', async (_what, adapter, name) => {
  const how: Combination = { method: 'linear', weights: [0.5] };
  await expectRefused([['one', adapter]], how, 'plan.option-invalid', [name, '0.5', '"one"']);
});

test('what does not meet is merged: rows, a module and deltas of three adapters', async () => {
  const adapters = [
    ['one', trainedRows()],
    ['two', savedHead()],
    ['three', tinyAdapter({ targets: ['mlp.up_proj'], seed: 4 })],
  ] as const;
  const { shards, rules } = await preview(adapters, { method: 'sequential' });
  const tensors = shards.flatMap((shard) => shard.tensors);
  const head = tensors.find(({ name }) => name === 'lm_head.weight');
  const embedding = tensors.find(({ name }) => name === `${EMBEDDING}.weight`);
  expect([head?.from.input, embedding?.tokens?.[0]?.from.input]).toEqual(['two', 'one']);
  const added = tensors.map(({ deltas = [] }) => deltas.map(({ adapter }) => adapter).join());
  // The tiny adapters of one and two are the same modules.
  expect(new Set(added)).toEqual(new Set(['', 'one,two', 'three']));
  expect(rules.map(({ adapter }) => adapter)).toEqual(['one', 'two', 'three']);
});

test('of several tokenizers that of the changed vocabulary is used, with a warning', async () => {
  const [one, two] = [tinyAdapter(), grown(103)];
  for (const adapter of [one, two]) {
    adapter.files['tokenizer_config.json'] = '{}';
    adapter.files['tokenizer.json'] = JSON.stringify({ model: { vocab: ['t'] } });
  }
  const { sideFiles, warnings } = await preview(
    [
      ['one', one],
      ['two', two],
    ],
    LINEAR,
  );
  expect(sideFiles.find(({ path }) => path === 'tokenizer.json')?.input).toBe('two');
  expect(warnings.join()).toMatch(/"one", "two" bring a tokenizer each; that of "two"/);
});
