/** How factors of experts are read where shapes do not tell, and what patterns are matched with. */
import { expect, test } from 'vitest';
import { fusedExpertsAdapter, tinyExperts } from '../../doubles/tiny-experts.ts';
import { type TinyModel, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';
import { concatenate } from '../../doubles/write-safetensors.ts';
import { planFor, tensorOf } from './plan-tiny.ts';

const SQUARE = { hidden: 24, intermediate: 24 };
const STEM = 'model.layers.0.mlp.experts';

/** Only down_proj, which is square. */
function onDown(version?: string): TinyModel {
  const adapter = fusedExpertsAdapter(SQUARE);
  adapter.tensors = adapter.tensors.filter(({ name }) => !name.includes('base_layer'));
  adapter.config['target_parameters'] = ['mlp.experts.down_proj'];
  if (version !== undefined) adapter.config['peft_version'] = version;
  return adapter;
}

test.each([
  ['0.18.1', true],
  ['0.19.1', false],
  ['0.21.2', false],
  ['1.0.0.dev0', false],
] as const)('square parameters are read as PEFT %s wrote them', async (version, transposed) => {
  const plan = await planFor(tinyExperts(SQUARE), onDown(version));
  const { deltas } = tensorOf(plan, `${STEM}.2.down_proj.weight`);
  expect(deltas).toHaveLength(1);
  expect(deltas![0]).toMatchObject({
    module: `${STEM}.down_proj`,
    transposed,
    bColumns: { begin: 2, step: 4 },
    a: { shape: [3, 24] },
  });
});

test('square parameters are always [in, out] in gpt-oss, where PEFT knows it', async () => {
  const base = tinyExperts({ ...SQUARE, fused: true });
  base.config['model_type'] = 'gpt_oss';
  const plan = await planFor(base, onDown());
  const { deltas } = tensorOf(plan, `${STEM}.down_proj`);
  expect(deltas!.map((delta) => [delta.transposed, delta.rows?.begin])).toEqual([
    [true, 0],
    [true, 24],
    [true, 48],
    [true, 72],
  ]);
});

test('a pattern is matched with the name of the parameter', async () => {
  const adapter = fusedExpertsAdapter();
  adapter.config['alpha_pattern'] = { 'experts.gate_up_proj': 30, 'experts.base_layer': 99 };
  const plan = await planFor(tinyExperts(), adapter);
  const scalings = ['gate_proj', 'up_proj', 'down_proj'].map(
    (name) => tensorOf(plan, `${STEM}.1.${name}.weight`).deltas?.[0]?.scaling,
  );
  expect(scalings).toEqual([10, 10, 2]);
});

test.each(['glm', 'glm4', 'phi4_multimodal'])(
  'gate before up in a fused layer of %s',
  async (type) => {
    const base = tinyBase();
    base.config['model_type'] = type;
    base.tensors = base.tensors.flatMap((tensor) => {
      if (tensor.name.includes('up_proj')) return [];
      if (!tensor.name.includes('gate_proj')) return [tensor];
      const name = tensor.name.replace('gate_proj', 'gate_up_proj');
      return [{ ...tensor, name, shape: [256, 64], data: concatenate(tensor.data, tensor.data) }];
    });
    const plan = await planFor(base, tinyAdapter({ targets: ['mlp.gate_proj', 'mlp.up_proj'] }));
    const { deltas } = tensorOf(plan, 'model.layers.1.mlp.gate_up_proj.weight');
    const places = deltas?.map(({ module, rows }) => [module.split('.').at(-1), rows]);
    expect(places).toEqual([
      ['gate_proj', { begin: 0, count: 128 }],
      ['up_proj', { begin: 128, count: 128 }],
    ]);
  },
);
