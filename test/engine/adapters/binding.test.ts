import { expect, test } from 'vitest';
import type { Plan } from '../../../engine/plan/plan.ts';
import { kindAdapter } from '../../doubles/kind-adapter.ts';
import { Random } from '../../doubles/random.ts';
import { fusedExpertsAdapter, tinyExperts } from '../../doubles/tiny-experts.ts';
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

function mergedNames(plan: Plan): string[] {
  const tensors = plan.shards.flatMap((shard) => shard.tensors);
  return tensors.filter((tensor) => tensor.deltas !== undefined).map((tensor) => tensor.name);
}

function rename(model: TinyModel, from: RegExp, to: string): void {
  model.tensors = model.tensors.map((each) => ({ ...each, name: each.name.replace(from, to) }));
}

function add(adapter: TinyModel, name: string, ...shape: number[]): void {
  adapter.tensors.push(randomTensor(new Random(9), `base_model.model.${name}`, 'F32', shape));
}

const LIVE: readonly [string, (adapter: TinyModel) => void][] = [
  ['as PEFT saves them', () => undefined],
  [
    'live, with the name of the adapter',
    (adapter) => rename(adapter, /\.weight$/, '.default.weight'),
  ],
  ['live, with another name', (adapter) => rename(adapter, /\.weight$/, '.my-adapter.weight')],
];

test.each(LIVE)('factors with names %s', async (_what, change) => {
  const adapter = tinyAdapter();
  change(adapter);
  const plan = await planFor(tinyBase(), adapter);
  expect(plan.rules).toEqual([{ adapter: 'a', rule: 'exact' }]);
  expect(mergedNames(plan)).toEqual([
    'model.layers.0.self_attn.q_proj.weight',
    'model.layers.0.self_attn.v_proj.weight',
    'model.layers.1.self_attn.q_proj.weight',
    'model.layers.1.self_attn.v_proj.weight',
  ]);
  expect(plan.warnings).toEqual([]);
});

test('a base that was saved without its prefix', async () => {
  const base = tinyBase();
  rename(base, /^model\./, '');
  const plan = await planFor(base, tinyAdapter());
  expect(plan.rules).toEqual([{ adapter: 'a', rule: 'without-prefix model.' }]);
  expect(mergedNames(plan)).toHaveLength(4);
});

test('an adapter that was trained without the prefix of the base', async () => {
  const adapter = tinyAdapter();
  rename(adapter, /^base_model\.model\.model\./, 'base_model.model.');
  const plan = await planFor(tinyBase(), adapter);
  expect(plan.rules).toEqual([{ adapter: 'a', rule: 'with-prefix model.' }]);
  expect(mergedNames(plan)).toHaveLength(4);
});

test.each([
  'lm_head.weight',
  'lm_head.modules_to_save.default.weight',
  'lm_head.modules_to_save.weight',
])('a whole tensor named %s replaces the base’s, in the dtype of the base', async (name) => {
  const adapter = tinyAdapter();
  add(adapter, name, 100, 64);
  const plan = await planFor(tinyBase(), adapter);
  expect(tensorOf(plan, HEAD)).toMatchObject({ dtype: 'BF16', from: { input: 'a', dtype: 'F32' } });
  expect(tensorOf(plan, EMBEDDING).from.input).toBe('base');
  expect(plan.configEdits).toEqual([]);
});

test('LoRA on the head of tied embeddings leaves the embedding alone', async () => {
  const adapter = tinyAdapter();
  add(adapter, 'lm_head.lora_A.weight', 4, 64);
  add(adapter, 'lm_head.lora_B.weight', 100, 4);
  const base = tinyBase({ tied: true });
  const plan = await planFor(base, adapter);
  const head = tensorOf(plan, HEAD);
  const embedding = tensorOf(plan, EMBEDDING);
  expect(head.deltas).toBeDefined();
  expect(embedding.deltas).toBeUndefined();
  expect(head.from).toEqual(embedding.from);
  expect(plan.configEdits).toEqual([{ path: ['tie_word_embeddings'], value: false }]);
  expect(plan.warnings.join()).toMatch(/tied/);
});

test('a trained embedding of a tied pair leaves the head as it was', async () => {
  const adapter = tinyAdapter();
  add(adapter, EMBEDDING, 100, 64);
  const plan = await planFor(tinyBase({ tied: true }), adapter);
  expect(tensorOf(plan, EMBEDDING).from.input).toBe('a');
  expect(tensorOf(plan, HEAD).from.input).toBe('base');
  expect(plan.configEdits).toEqual([{ path: ['tie_word_embeddings'], value: false }]);
});

test('a tied head that is on disk nonetheless is not believed', async () => {
  const base = tinyBase();
  base.config['tie_word_embeddings'] = true;
  const adapter = tinyAdapter();
  add(adapter, EMBEDDING, 100, 64);
  const plan = await planFor(base, adapter);
  const names = plan.shards.flatMap((shard) => shard.tensors.map((tensor) => tensor.name));
  expect(names.filter((name) => name === HEAD)).toHaveLength(1);
  // Loaders use the embedding for both, so that is what the head was.
  const untouched = await planFor(base, tinyAdapter());
  expect(tensorOf(plan, HEAD).from).toEqual(tensorOf(untouched, EMBEDDING).from);
});

test('an adapter that leaves tied embeddings alone leaves them tied', async () => {
  const plan = await planFor(tinyBase({ tied: true }), tinyAdapter());
  expect(plan.configEdits).toEqual([]);
  expect(plan.shards.flatMap((shard) => shard.tensors.map((each) => each.name))).not.toContain(
    HEAD,
  );
});

test('a weight that is stored the other way round is told by its architecture', async () => {
  const base = tinyBase();
  base.config['model_type'] = 'gpt2';
  const adapter = tinyAdapter();
  for (const model of [base, adapter]) {
    rename(model, /self_attn\.q_proj/, 'attn.c_attn');
    rename(model, /self_attn\.v_proj/, 'attn.c_proj');
  }
  adapter.config['target_modules'] = ['c_attn', 'c_proj'];
  for (const layer of [0, 1]) {
    alter(base, `model.layers.${layer}.attn.c_proj.weight`, { shape: [64, 32] });
  }
  const plan = await planFor(base, adapter);
  // c_attn is square here: only the architecture tells.
  for (const name of mergedNames(plan))
    expect(tensorOf(plan, name).deltas?.[0]?.transposed).toBe(true);
  expect(plan.warnings.join()).toMatch(/fan_in_fan_out: false/);
});

test('a B of zeros is a warning: of all modules, or of some', async () => {
  const all = tinyAdapter();
  for (const { name, data } of all.tensors) if (name.includes('lora_B')) data.fill(0);
  const plan = await planFor(tinyBase(), all);
  expect(plan.warnings).toEqual([
    expect.stringMatching(/"a" changes nothing: every lora_B is zero/),
  ]);

  const some = tinyAdapter();
  // Minus zero is zero.
  some.tensors.find(({ name }) => name.includes('layers.1.self_attn.v_proj.lora_B'))?.data.fill(0);
  some.tensors.at(-1)?.data.set([0, 0, 0, 0x80]);
  const { warnings } = await planFor(tinyBase(), some);
  expect(warnings).toEqual([
    expect.stringMatching(
      /does not change 1 of its 4 modules.*model\.layers\.1\.self_attn\.v_proj/,
    ),
  ]);
});

test.each<[string, TinyModel, number]>([
  ['LoRA', tinyAdapter(), 4],
  ['LoHa', kindAdapter('LOHA'), 4],
  ['LoKr', kindAdapter('LOKR'), 4],
])('an alpha of 0 is a warning: %s', async (_what, adapter, count) => {
  const key = 'lora_alpha' in adapter.config ? 'lora_alpha' : 'alpha';
  expect((await planFor(tinyBase(), adapter)).warnings).toEqual([]);
  adapter.config[key] = 0;
  const { warnings } = await planFor(tinyBase(), adapter);
  expect(warnings).toEqual([
    expect.stringContaining(`"a" has a strength of 0 in ${count} of its ${count} modules`),
  ]);

  // A pattern gives some of them another.
  adapter.config['alpha_pattern'] = { q_proj: 4 };
  expect((await planFor(tinyBase(), adapter)).warnings).toEqual([
    expect.stringMatching(/in 2 of its 4 modules.*layers\.0\.(self_attn\.v|mlp\.down)_proj/),
  ]);
});

test('an alpha of 0 on fused experts is a warning', async () => {
  const adapter = fusedExpertsAdapter();
  adapter.config['lora_alpha'] = 0;
  const { warnings } = await planFor(tinyExperts(), adapter);
  expect(warnings.join()).toMatch(/strength of 0 in 2 of its 2 modules/);
});

test('safetensors files beside the index are named and not read', async () => {
  const base = tinyBase({ shards: 2 });
  base.files['consolidated.safetensors'] = 'not one';
  const plan = await planFor(base, tinyAdapter());
  expect(plan.warnings).toEqual([expect.stringMatching(/1 safetensors file .*consolidated/)]);
});
