import { expect, test } from 'vitest';
import { COMBINATION_METHODS, type Combination } from '../../../engine/plan/combination.ts';
import { previewMerge } from '../../../engine/plan/plan-merge.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { makeMlx } from '../../doubles/foreign-adapters.ts';
import { fusedAttention } from '../../doubles/fused-attention.ts';
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

const SVD: Combination = { method: 'svd', parameters: { rank: 2 } };
const PEFT: Combination = { method: 'peft_linear' };

async function preview(
  adapters: readonly TinyModel[],
  combination: Combination,
  base = tinyBase(),
) {
  const inputs = adapters.map((model, index) => ({
    id: `a${index + 1}`,
    files: memoryFiles(`a${index + 1}`, adapterFiles(model)).files,
  }));
  return previewMerge(memoryFiles('base', baseFiles(base)).files, inputs, { combination });
}

async function refusalOf(...args: Parameters<typeof preview>): Promise<unknown> {
  return preview(...args).then(
    () => undefined,
    (reason: unknown) => reason,
  );
}

const two = [tinyAdapter(), tinyAdapter({ seed: 3 })];

test.each<[string, Combination, readonly string[]]>([
  ['a rank of 0', { method: 'svd', parameters: { rank: 0 } }, ['the rank 0', '1024']],
  ['a rank that is not whole', { method: 'peft_svd', parameters: { rank: 2.5 } }, ['2.5']],
  ['a rank beyond all', { method: 'svd', parameters: { rank: 1025 } }, ['1025']],
  ['a rank of a sum', { method: 'linear', parameters: { rank: 4 } }, ['linear takes no rank']],
  ['a density of svd', { method: 'svd', parameters: { density: 0.5 } }, ['svd takes no density']],
  [
    'signs of a sum',
    { ...PEFT, parameters: { majoritySign: 'total' } },
    ['peft_linear elects no sign'],
  ],
  ['no density', { method: 'peft_ties' }, ['peft_ties needs a density']],
  [
    'a density of 0',
    { method: 'peft_magnitude_prune', parameters: { density: 0 } },
    ['density 0 is not'],
  ],
  ['a density above 1', { method: 'peft_ties', parameters: { density: 1.5 } }, ['density 1.5']],
  [
    'a density that is no number',
    { method: 'peft_ties', parameters: { density: Number.NaN } },
    ['NaN'],
  ],
])('%s', async (_what, combination, names) => {
  expectError(await refusalOf(two, combination), 'plan.option-invalid', names);
});

test('methods of PEFT with chance, or on whole deltas, say what to use instead', async () => {
  const refused = COMBINATION_METHODS.filter((name) => /^peft_(dare|.*._svd)/.test(name));
  expect(refused).toHaveLength(6);
  for (const method of refused) {
    const remedy = method.includes('dare') ? 'with a seed' : 'without that cut';
    const error = await refusalOf(two, { method, parameters: { density: 0.5 } });
    expectError(error, 'plan.option-invalid', [method, remedy]);
  }
});

/** Of two adapters, one that changes something in this way. */
const LOST: readonly (readonly [string, TinyModel, readonly string[]])[] = [
  ['DoRA', doraAdapter({ seed: 3 }), ['DoRA', 'q_proj']],
  ['a saved module', withTensor('lm_head.weight', [100, 64]), ['modules_to_save', 'lm_head']],
  ['trained rows', trainedRows(), ['trainable_token_indices', 'embed_tokens']],
  ['biases', withBiases(), ['lora_bias', 'q_proj.bias']],
];

test.each(LOST)('%s, which PEFT loses when it combines', async (_what, adapter, names) => {
  for (const method of ['peft_linear', 'peft_cat', 'peft_svd'] as const) {
    const error = await refusalOf([tinyAdapter(), adapter], { method }, baseWithBiases());
    const other = _what === 'DoRA' ? 'adapter.contradiction' : 'plan.option-invalid';
    expectError(error, other, ['"a2"', ...names]);
    const alone = await refusalOf([adapter], { method }, baseWithBiases());
    expectError(alone, 'plan.option-invalid', ['"a1"', 'linear', ...names]);
  }
});

test('DoRA, which has more than two factors, by svd', async () => {
  const error = await refusalOf([doraAdapter()], SVD);
  expectError(error, 'plan.option-invalid', ['DoRA', 'svd', 'q_proj.weight', 'sequential']);
});

test('unequal ranks, of adapters or of a module, where places are combined', async () => {
  const wide = tinyAdapter({ rank: 9, seed: 3 });
  const patterned = tinyAdapter({ rank: 4, seed: 3 });
  patterned.config['rank_pattern'] = { nothing: 9 };
  for (const adapter of [wide, patterned]) {
    const error = await refusalOf([tinyAdapter(), adapter], PEFT);
    expectError(error, 'plan.option-invalid', ['the adapters', '4, 9', 'linear', 'svd']);
  }
  // Of equal rank as a whole, by patterns, but not in every module.
  const v = tinyAdapter({ rank: 9, targets: ['self_attn.v_proj'] });
  const one = { ...v, tensors: [...v.tensors, ...qTensors(4, 3)] };
  one.config = { ...v.config, target_modules: ['q_proj', 'v_proj'], r: 9, lora_alpha: 18 };
  one.config['rank_pattern'] = { q_proj: 4 };
  const error = await refusalOf([tinyAdapter({ rank: 9, seed: 3 }), one], PEFT);
  expectError(error, 'plan.option-invalid', ['q_proj.weight', '9, 4']);
  await preview([tinyAdapter(), wide], { method: 'peft_svd' });
});

test('a first adapter whose configuration PEFT gives to the result', async () => {
  const rslora = tinyAdapter();
  rslora.config['use_rslora'] = true;
  const error = await refusalOf([rslora, tinyAdapter({ seed: 3 })], PEFT);
  expectError(error, 'plan.option-invalid', ['"a1"', 'use_rslora', 'square root']);
  await preview([tinyAdapter({ seed: 3 }), rslora], PEFT);
  await preview([rslora, tinyAdapter({ seed: 3 })], SVD);

  const narrow = { ...tinyAdapter(), tensors: qTensors(4, 2).slice(0, 2) };
  narrow.config = { ...narrow.config, target_modules: ['q_proj'], layers_to_transform: [0] };
  const missed = await refusalOf([narrow, tinyAdapter({ seed: 3 })], PEFT);
  expectError(missed, 'plan.option-invalid', ['"a1"', 'layers_to_transform', '"a2"']);
  await preview([tinyAdapter({ seed: 3 }), narrow], PEFT);
});

test('more ranks than can be worked out', async () => {
  const targets = ['self_attn.v_proj'] as const;
  const wide = [600, 500].map((rank, seed) => tinyAdapter({ rank, targets, seed: seed + 2 }));
  const error = await refusalOf(wide, SVD);
  expectError(error, 'plan.option-invalid', ['v_proj', '1100', '1024', 'linear']);
});

test('adapters that disagree on which way round a weight is stored', async () => {
  const base = tinyBase();
  base.tensors = base.tensors.map((tensor) =>
    tensor.name.includes('layers') ? { ...tensor, shape: tensor.shape.toReversed() } : tensor,
  );
  base.config['model_type'] = 'unheard_of';
  const targets = ['self_attn.q_proj', 'self_attn.v_proj'] as const;
  const [flagged, plain] = [tinyAdapter({ targets }), tinyAdapter({ targets: [targets[0]] })];
  flagged.config['fan_in_fan_out'] = true;
  const error = await refusalOf([flagged, plain], SVD, base);
  expectError(error, 'adapter.contradiction', ['"a1"', '"a2"', 'q_proj', 'fan_in_fan_out']);
});

test('peft_cat on 16-bit layers says what PEFT does besides', async () => {
  const { warnings } = await preview(two, { method: 'peft_cat' });
  expect(warnings.join()).toMatch(/peft_cat: on 16-bit layers PEFT rounds/);
  const wide = await preview(two, { method: 'peft_cat' }, tinyBase({ dtype: 'F32' }));
  expect(wide.warnings).toEqual([]);
});

function withTensor(name: string, shape: readonly number[]): TinyModel {
  const adapter = tinyAdapter({ seed: 3 });
  adapter.tensors.push(randomTensor(new Random(5), `base_model.model.${name}`, 'F32', shape));
  return adapter;
}

function trainedRows(): TinyModel {
  const adapter = withTensor('model.embed_tokens.token_adapter.trainable_tokens_delta', [2, 64]);
  adapter.config['trainable_token_indices'] = [5, 7];
  return adapter;
}

function qTensors(rank: number, seed: number): TinyModel['tensors'] {
  return tinyAdapter({ rank, seed, targets: ['self_attn.q_proj'] }).tensors;
}

function withBiases(): TinyModel {
  const adapter = tinyAdapter({ seed: 3, targets: ['self_attn.q_proj'] });
  adapter.config['lora_bias'] = true;
  const random = new Random(6);
  for (const { name } of adapter.tensors.filter((each) => each.name.includes('lora_B'))) {
    adapter.tensors.push(randomTensor(random, name.replace('.weight', '.bias'), 'F32', [64]));
  }
  return adapter;
}

function baseWithBiases(): TinyModel {
  const base = tinyBase();
  for (const layer of [0, 1]) {
    const name = `model.layers.${layer}.self_attn.q_proj.bias`;
    base.tensors.push(randomTensor(new Random(layer + 1), name, 'BF16', [64]));
  }
  return base;
}

test('a module that the base has in pieces, of which each would have factors of its own', async () => {
  const targets = ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'] as const;
  const adapter = fusedAdapter();
  const base = tinyBase();
  base.config['model_type'] = 'phi3';
  for (const method of ['svd', 'peft_svd', 'peft_ties'] as const) {
    const parameters = method === 'peft_ties' ? { density: 0.5 } : { rank: 2 };
    for (const adapters of [
      [adapter, adapter],
      [tinyAdapter({ targets }), adapter],
    ]) {
      const error = await refusalOf(adapters, { method, parameters }, base);
      expectError(error, 'plan.option-invalid', ['"a', 'piece of its factors', method, 'linear']);
    }
    const pieces = await refusalOf(
      [tinyAdapter(), adapter],
      { method, parameters },
      fusedAttention(),
    );
    expectError(pieces, 'plan.option-invalid', ['qkv_proj', method]);
  }
  const sum = { method: 'svd', parameters: { rank: 8 } } as const;
  expect(await refusalOf([adapter, adapter], sum, base)).toBeUndefined();
});

function fusedAdapter(): TinyModel {
  const adapter = tinyAdapter();
  const random = new Random(12);
  adapter.config['target_modules'] = ['qkv_proj'];
  adapter.tensors = [0, 1].flatMap((layer) => {
    const stem = `base_model.model.model.layers.${layer}.self_attn.qkv_proj.lora_`;
    return [
      randomTensor(random, `${stem}A.weight`, 'F32', [4, 64]),
      randomTensor(random, `${stem}B.weight`, 'F32', [128, 4]),
    ];
  });
  return adapter;
}

test("factors that MLX stores transposed, where PEFT's A and B are not treated alike", async () => {
  const mlx = tinyAdapter({ seed: 3 });
  const lora_parameters = { rank: 4, scale: 2, dropout: 0 };
  makeMlx(mlx, { fine_tune_type: 'lora', num_layers: 2, lora_parameters });
  for (const adapters of [
    [mlx, mlx],
    [tinyAdapter(), mlx],
  ]) {
    const error = await refusalOf(adapters, { method: 'peft_linear', weights: [1, -1] });
    expectError(error, 'plan.option-invalid', ['q_proj', 'MLX', 'peft_linear', 'linear']);
  }
  expect(await refusalOf([mlx, mlx], { method: 'linear', weights: [1, -1] })).toBeUndefined();
});
