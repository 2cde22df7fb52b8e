import { expect, test } from 'vitest';
import { readAdapter } from '../../../engine/adapters/adapter.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { kindAdapter } from '../../doubles/kind-adapter.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import { adapterFiles, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';
import { planFor } from './plan-tiny.ts';

/** The scalings of layers 0 and 1 of q_proj and v_proj, as `layer.module`. */
async function scalingsWith(
  config: Record<string, unknown>,
  patterns = '',
): Promise<Record<string, number>> {
  const model = tinyAdapter({ rank: 16 });
  Object.assign(model.config, config);
  // As text, because an object would not keep the order of its keys.
  const text = JSON.stringify(model.config).replace(/\}$/, `${patterns}}`);
  model.files['adapter_config.json'] = text;
  const adapter = await readAdapter('a', memoryFiles('adapter', adapterFiles(model)).files);
  return Object.fromEntries(
    adapter.pairs.map(({ module, scaling }) => {
      const [, layer, name] = /layers\.(\d)\.self_attn\.(\w)_proj/.exec(module) ?? [];
      return [`${layer}.${name}`, scaling];
    }),
  );
}

const all = (scaling: number) => ({
  '0.q': scaling,
  '0.v': scaling,
  '1.q': scaling,
  '1.v': scaling,
});

test('alpha over the rank, or over its square root', async () => {
  expect(await scalingsWith({ lora_alpha: 8 })).toEqual(all(0.5));
  expect(await scalingsWith({ lora_alpha: 8, use_rslora: true })).toEqual(all(2));
});

test('without alpha it is 8, as in PEFT', async () => {
  expect(await scalingsWith({ lora_alpha: undefined })).toEqual(all(0.5));
});

test.each([
  ['a module name', '"q_proj":32', { '0.q': 2, '1.q': 2 }],
  ['a path', '"layers.1.self_attn.q_proj":32', { '1.q': 2 }],
  ['the whole path', '"model.layers.1.self_attn.v_proj":32', { '1.v': 2 }],
  ['an expression', '"layers\\\\.[01]\\\\.self_attn\\\\.v_proj":32', { '0.v': 2, '1.v': 2 }],
  ['an alternative', '"(q|v)_proj":32', all(2)],
  ['an end that is not at a dot', '"roj":32', {}],
  ['a beginning', '"model.layers.0":32', {}],
  ['anything', '".*":32', all(2)],
])('alpha_pattern with %s', async (_what, patterns, changed) => {
  const scalings = await scalingsWith({ lora_alpha: 16 }, `,"alpha_pattern":{${patterns}}`);
  expect(scalings).toEqual({ ...all(1), ...changed });
});

test('the first key that matches wins, in the order of the file', async () => {
  const config = { lora_alpha: 16 };
  const first = await scalingsWith(
    config,
    ',"alpha_pattern":{"q_proj":32,"0.self_attn.q_proj":64}',
  );
  expect(first).toMatchObject({ '0.q': 2, '1.q': 2 });
  const second = await scalingsWith(
    config,
    ',"alpha_pattern":{"0.self_attn.q_proj":64,"q_proj":32}',
  );
  expect(second).toMatchObject({ '0.q': 4, '1.q': 2 });
});

test('a key that is a number keeps its place', async () => {
  const model = tinyAdapter({ rank: 16, targets: ['self_attn.q_proj'] });
  model.tensors = model.tensors.map((tensor) => ({
    ...tensor,
    name: tensor.name.replace('self_attn.q_proj', 'mlp.0'),
  }));
  const config = JSON.stringify({ ...model.config, lora_alpha: 16, target_modules: ['0'] });
  const patterns = '"alpha_pattern":{"mlp.0":32,"0":64}';
  model.files['adapter_config.json'] = config.replace(/\}$/, `,${patterns}}`);
  const adapter = await readAdapter('a', memoryFiles('adapter', adapterFiles(model)).files);
  expect(adapter.pairs.map((pair) => pair.scaling)).toEqual([2, 2]);
});

test('rank and alpha are looked up separately', async () => {
  const patterns = ',"rank_pattern":{"q_proj":16},"alpha_pattern":{"layers.0.self_attn.q_proj":64}';
  const scalings = await scalingsWith({ r: 16, lora_alpha: 16 }, patterns);
  expect(scalings).toEqual({ ...all(1), '0.q': 4 });
});

test('an alpha of 0 is told of, where it makes the delta nothing', async () => {
  const warningsOf = async (adapter: ReturnType<typeof tinyAdapter>, alpha: number) => {
    adapter.config[adapter.config['peft_type'] === 'LOHA' ? 'alpha' : 'lora_alpha'] = alpha;
    return (await planFor(tinyBase(), adapter)).warnings;
  };
  for (const adapter of [tinyAdapter(), kindAdapter('LOHA')]) {
    expect(await warningsOf(adapter, 0)).toEqual([
      expect.stringMatching(/"a" has a strength of 0 in 4 of its 4 modules.*lora_alpha/),
    ]);
    expect(await warningsOf(adapter, 1)).toEqual([]);
  }
  const some = tinyAdapter();
  some.config['alpha_pattern'] = { v_proj: 4 };
  expect(await warningsOf(some, 0)).toEqual([
    expect.stringMatching(/ 2 of its 4 modules.*\(model.layers.0.self_attn.q_proj, /),
  ]);
  // For AdaLoRA it means the rank, as in PEFT; DoRA still gives rows their lengths.
  expect(await warningsOf(kindAdapter('ADALORA'), 0)).toEqual([]);
  expect(await warningsOf(doraAdapter(), 0)).toEqual([]);
});
