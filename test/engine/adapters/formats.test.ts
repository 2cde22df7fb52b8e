import { join } from 'node:path';
import { expect, test } from 'vitest';
import { makeKohya, makeMlx } from '../../doubles/foreign-adapters.ts';
import { mergeDirectories, readFiles, writeFiles } from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  baseFiles,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { previewTiny } from '../insight/preview-tiny.ts';
import { planFor, tensorOf } from './plan-tiny.ts';

const Q = 'model.layers.0.self_attn.q_proj.weight';
const MLX = { fine_tune_type: 'lora', num_layers: 2, model: 'acme/tiny' };

async function mergedBytes(adapter: TinyModel): Promise<Buffer | undefined> {
  const root = await temporaryDirectory();
  const place = (name: string) => join(root, name);
  await writeFiles(place('base'), baseFiles(tinyBase()));
  await writeFiles(place('adapter'), adapterFiles(adapter));
  const output = place('merged');
  await mergeDirectories({ base: place('base'), adapter: place('adapter'), output });
  return (await readFiles(output)).get('model.safetensors');
}

const SPELLINGS: readonly [string, (adapter: TinyModel) => void][] = [
  ['kohya', (adapter) => makeKohya(adapter)],
  ['kohya without a prefix', (adapter) => makeKohya(adapter, { prefix: '' })],
  ['kohya with another prefix', (adapter) => makeKohya(adapter, { prefix: 'lycoris_' })],
  [
    'kohya with dots',
    (adapter) => {
      const dotted = (name: string) =>
        `model.layers.${name.replace(/^.*layers_(\d)_self_attn_/, '$1.self_attn.')}`;
      makeKohya(adapter, {
        change: (tensors) => tensors.map((each) => ({ ...each, name: dotted(each.name) })),
      });
    },
  ],
  // alpha / r = 8 / 4: the scale itself, which is not divided.
  ['mlx', (adapter) => makeMlx(adapter, { ...MLX, lora_parameters: { rank: 4, scale: 2 } })],
  [
    'mlx with an alpha that is the rank',
    (adapter) =>
      makeMlx(adapter, { lora_layers: 2, lora_parameters: { rank: 4, alpha: 4, scale: 2 } }),
  ],
];

test.each(SPELLINGS)('the same factors as %s merge to the same bytes', async (_what, change) => {
  const peft = await mergedBytes(tinyAdapter());
  const adapter = tinyAdapter();
  change(adapter);
  const ours = await mergedBytes(adapter);
  expect(ours?.equals(peft as Buffer)).toBe(true);
});

test('a kohya file is named in the plan, and has no configuration among its inputs', async () => {
  const adapter = tinyAdapter();
  makeKohya(adapter);
  const plan = await planFor(tinyBase(), adapter);
  expect(plan.rules).toEqual([{ adapter: 'a', rule: 'underscores for dots', format: 'kohya' }]);
  expect(plan.inputs[1]?.files.map(({ path }) => path)).toEqual(['style.safetensors']);
  expect(plan.warnings).toEqual([]);
});

test('each kohya module has its own alpha, divided by its rank once', async () => {
  const adapter = tinyAdapter();
  makeKohya(adapter, { alpha: (module) => (module.includes('layers_0') ? 1 : 16) });
  const plan = await planFor(tinyBase(), adapter);
  expect(tensorOf(plan, Q).deltas?.[0]).toMatchObject({ rank: 4, alpha: 1, scaling: 0.25 });
  expect(tensorOf(plan, Q.replace('0', '1')).deltas?.[0]).toMatchObject({ alpha: 16, scaling: 4 });
});

test('the rank of a kohya adapter is that of its factors, also where it is combined', async () => {
  const adapters = [3, 4].map((seed) => {
    const adapter = tinyAdapter({ rank: 16, seed });
    makeKohya(adapter);
    return adapter;
  });
  const { tensors } = await previewTiny(tinyBase(), adapters, { combination: { method: 'svd' } });
  const query = tensors.find(({ name }) => name === Q);
  expect(query).toMatchObject({ combined: { rank: 16 }, deltas: [{ rank: 16 }, { rank: 16 }] });
  const mixed = [tinyAdapter({ rank: 16 }), adapters[0]!];
  const peft = await previewTiny(tinyBase(), mixed, { combination: { method: 'peft_linear' } });
  expect(peft.tensors.find(({ name }) => name === Q)).toMatchObject({ combined: { rank: 16 } });
});

test('kohya modules without an alpha have their rank as one, with a warning', async () => {
  const adapter = tinyAdapter();
  makeKohya(adapter, { alpha: (module) => (module.includes('q_proj') ? undefined : 8) });
  const plan = await planFor(tinyBase(), adapter);
  expect(tensorOf(plan, Q).deltas?.[0]).toMatchObject({ rank: 4, alpha: 4, scaling: 1 });
  expect(plan.warnings).toEqual([expect.stringMatching(/2 of 4 modules have no alpha/)]);
});

test('a kohya delta on a layer that is stored [in, out] is turned by the architecture', async () => {
  const base = tinyBase();
  base.config['model_type'] = 'gpt2';
  const adapter = tinyAdapter({ targets: ['self_attn.q_proj'] });
  for (const model of [base, adapter]) {
    model.tensors = model.tensors.map((each) => ({
      ...each,
      name: each.name.replace('self_attn.q_proj', 'attn.c_attn'),
    }));
  }
  makeKohya(adapter);
  const plan = await planFor(base, adapter);
  // Square: the name without dots alone would not tell.
  expect(tensorOf(plan, 'model.layers.0.attn.c_attn.weight').deltas?.[0]?.transposed).toBe(true);
});

test('factors of MLX are those of the transpose, but for a base that is stored so', async () => {
  const lora_parameters = { rank: 4, scale: 2 };
  const adapter = tinyAdapter();
  makeMlx(adapter, { ...MLX, lora_parameters });
  const plan = await planFor(tinyBase(), adapter);
  expect(tensorOf(plan, Q).deltas?.[0]).toMatchObject({ transposed: true, scaling: 2, alpha: 8 });

  const base = tinyBase();
  base.config['model_type'] = 'gpt2';
  const conv = tinyAdapter({ targets: ['self_attn.q_proj'] });
  for (const model of [base, conv]) {
    model.tensors = model.tensors.map((each) => ({
      ...each,
      name: each.name.replace('self_attn.q_proj', 'attn.c_attn'),
    }));
  }
  makeMlx(conv, { ...MLX, lora_parameters });
  const turned = await planFor(base, conv);
  const [delta] = tensorOf(turned, 'model.layers.0.attn.c_attn.weight').deltas ?? [];
  expect(delta?.transposed).toBe(false);
});

test('an adapter of MLX on a quantised model is merged with a warning', async () => {
  const adapter = tinyAdapter();
  const model = 'mlx-community/tiny-8bit';
  makeMlx(adapter, { ...MLX, model, lora_parameters: { rank: 4, scale: 2 } });
  const { warnings } = await planFor(tinyBase(), adapter);
  expect(warnings).toEqual([expect.stringMatching(/mlx-community\/tiny-8bit.*quantised/)]);
});

test('an adapter of MLX on 4-bit weights needs to be told what it is merged onto', async () => {
  const adapter = tinyAdapter();
  const model = 'mlx-community/tiny-4bit';
  makeMlx(adapter, { ...MLX, model, lora_parameters: { rank: 4, scale: 2 } });
  await expect(planFor(tinyBase(), adapter)).rejects.toMatchObject({
    code: 'adapter.quantized-training',
    message: expect.stringMatching(/base "mlx-community\/tiny-4bit"/),
  });
});

test('where PEFT and MLX left weights, the configuration says whose count', async () => {
  const lora_parameters = { rank: 4, scale: 2 };
  const both = tinyAdapter();
  const peft = adapterFiles(both).get('adapter_model.safetensors') as Uint8Array;
  makeMlx(both, { ...MLX, lora_parameters });
  both.files['adapter_model.safetensors'] = peft;
  expect((await planFor(tinyBase(), both)).rules[0]?.format).toBe('mlx');
  both.config = tinyAdapter().config;
  expect((await planFor(tinyBase(), both)).rules[0]).toEqual({ adapter: 'a', rule: 'exact' });
});
