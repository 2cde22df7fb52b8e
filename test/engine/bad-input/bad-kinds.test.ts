import { describe, expect, test } from 'vitest';
import type { ErrorCode } from '../../../engine/errors.ts';
import { type KindName, kindAdapter } from '../../doubles/kind-adapter.ts';
import { Random } from '../../doubles/random.ts';
import { alter, randomTensor, type TinyModel, tinyBase } from '../../doubles/tiny-model.ts';
import { planFor } from '../adapters/plan-tiny.ts';
import { type BadInput, expectRefusal } from './expect-refusal.ts';

const MODULE = 'model.layers.0.self_attn.q_proj';
const STEM = `base_model.model.${MODULE}`;
const random = new Random(17);

/** An adapter of a kind that something is wrong with. */
function bad(
  type: KindName,
  what: string,
  code: ErrorCode,
  names: readonly string[],
  spoil: (adapter: TinyModel, base: TinyModel) => void,
): BadInput {
  return {
    what: `${type} ${what}`,
    code,
    names,
    spoil: ({ base, adapter }) => {
      Object.assign(adapter, kindAdapter(type));
      spoil(adapter, base);
    },
  };
}

function configured(
  type: KindName,
  config: Readonly<Record<string, unknown>>,
  code: ErrorCode,
  names: readonly string[],
): BadInput {
  return bad(
    type,
    `with ${JSON.stringify(config)}`,
    code,
    ['adapter_config', ...names],
    (adapter) => Object.assign(adapter.config, config),
  );
}

function without(type: KindName, name: string): BadInput {
  const part = name.slice(name.lastIndexOf('.') + 1);
  return bad(type, `without a ${part}`, 'adapter.half-pair', ['/adapter', part], (adapter) =>
    alter(adapter, name),
  );
}

function shaped(type: KindName, part: string, shape: readonly number[]): BadInput {
  return bad(type, `with a ${part} [${shape}]`, 'adapter.bad-shape', [MODULE, part], (adapter) =>
    alter(adapter, `${STEM}.${part}`, randomTensor(random, `${STEM}.${part}`, 'F32', shape)),
  );
}

function beside(
  type: KindName,
  name: string,
  code: ErrorCode,
  names: readonly string[],
  shape: readonly number[] = [3, 3],
): BadInput {
  return bad(type, `with a ${name}`, code, ['/adapter', ...names], (adapter) => {
    adapter.tensors.push(randomTensor(random, name, 'F32', shape));
  });
}

const FEATURE = 'adapter.unsupported-feature';

const CONFIGURATIONS: readonly BadInput[] = [
  configured('VERA', { save_projection: false }, FEATURE, ['save_projection', 'seed']),
  configured('OFT', { oft_block_size: undefined }, 'adapter.config-invalid', ['oft_block_size']),
  configured('OFT', { use_cayley_neumann: undefined }, 'adapter.config-invalid', [
    'use_cayley_neumann',
  ]),
  configured('OFT', { peft_version: '0.17.1' }, FEATURE, ['use_cayley_neumann', '0.18']),
  configured('OFT', { peft_version: undefined }, FEATURE, ['use_cayley_neumann', '0.18']),
  configured('LOHA', { use_dora: true }, FEATURE, ['"use_dora"']),
  configured('LOKR', { new_key: 1 }, FEATURE, ['"new_key"']),
  configured('IA3', { trainable_token_indices: [3] }, FEATURE, ['"trainable_token_indices"']),
  configured('ADALORA', { new_key: 1 }, FEATURE, ['"new_key"']),
  configured('ADALORA', { bias: 'some' }, FEATURE, ['bias', '"some"']),
  configured('LOHA', { r: 0 }, 'adapter.config-invalid', ['r: ']),
];

const TENSORS: readonly BadInput[] = [
  without('ADALORA', `${STEM}.lora_E`),
  without('VERA', 'base_model.vera_B'),
  without('VERA', `${STEM}.vera_lambda_d`),
  without('LOHA', `${STEM}.hada_w2_a`),
  without('LOKR', `${STEM}.lokr_w2_b`),
  shaped('ADALORA', 'lora_E', [3, 2]),
  shaped('VERA', 'vera_lambda_d', [6]),
  shaped('VERA', 'vera_lambda_b', [65]),
  shaped('LOHA', 'hada_w2_b', [3, 63]),
  shaped('LOHA', 'hada_w1_a', [64, 2]),
  shaped('LOKR', 'lokr_w2_a', [8, 4]),
  shaped('LOKR', 'lokr_w1', [8, 8, 3, 3]),
  shaped('IA3', 'ia3_l', [2, 32]),
  beside('LOHA', `${STEM}.hada_t1`, FEATURE, ['hada_t1', 'convolution']),
  beside('LOKR', `${STEM}.lokr_t2`, FEATURE, ['lokr_t2', 'convolution']),
  beside('LOKR', `${STEM}.lokr_w1_b`, FEATURE, ['lokr_w1', 'lokr_w1_b']),
  beside('LOHA', `${STEM}.lokr_w1`, FEATURE, ['LoKr']),
  beside('ADALORA', `${STEM}.ranknum`, FEATURE, ['AdaLoRA'], [1]),
  beside('IA3', `${STEM}.ia3_l.default`, 'adapter.duplicate-key', ['ia3_l.default'], [64, 1]),
  beside(
    'IA3',
    'base_model.model.model.layers.0.mlp.up_proj.ia3_l.other',
    'adapter.duplicate-key',
    ['several adapters'],
  ),
  bad('OFT', 'with another triangle', FEATURE, [MODULE, '27 numbers'], (adapter) =>
    alter(
      adapter,
      `${STEM}.oft_R.weight`,
      randomTensor(random, `${STEM}.oft_R.weight`, 'F32', [8, 27]),
    ),
  ),
  bad('OFT', 'with a block of 512', FEATURE, [MODULE, 'blocks of 512'], (adapter) =>
    alter(
      adapter,
      `${STEM}.oft_R.weight`,
      randomTensor(random, `${STEM}.oft_R.weight`, 'F32', [1, (512 * 511) / 2]),
    ),
  ),
  bad('OFT', 'with several blocks that are one', 'adapter.bad-shape', [MODULE], (adapter) => {
    adapter.config['block_share'] = true;
  }),
  bad('LOHA', 'with a LoRA beside it', 'adapter.unknown-key', [MODULE, 'LOHA'], (adapter) => {
    for (const [half, shape] of [
      ['A', [3, 64]],
      ['B', [64, 3]],
    ] as const) {
      adapter.tensors.push(randomTensor(random, `${STEM}.lora_${half}.weight`, 'F32', shape));
    }
  }),
  bad('ADALORA', 'of another rank', 'adapter.rank-mismatch', [MODULE, 'rank 3', '2'], (adapter) => {
    adapter.config['rank_pattern'] = { [`${MODULE}.lora_E`]: [true, false, true] };
  }),
  bad('ADALORA', 'emptied', 'adapter.rank-mismatch', [MODULE, 'rank 0'], (adapter) => {
    for (const part of ['lora_A', 'lora_B', 'lora_E']) {
      const shape = part === 'lora_B' ? [64, 0] : [0, part === 'lora_E' ? 1 : 64];
      alter(adapter, `${STEM}.${part}`, { shape, data: new Uint8Array() });
    }
  }),
];

/** Makes the attention of tiny models GPT-2's, whose layers are stored [in, out]. */
function storeTransposed(adapter: TinyModel, base: TinyModel): void {
  base.config['model_type'] = 'gpt2';
  adapter.config['target_modules'] = ['c_attn', 'down_proj'];
  for (const model of [base, adapter]) {
    model.tensors = model.tensors.map((each) => ({
      ...each,
      name: each.name.replace('self_attn.q_proj', 'attn.c_attn'),
    }));
  }
}

const BASES: readonly BadInput[] = [
  ...(['LOHA', 'LOKR', 'OFT'] as const).map((type) =>
    bad(type, 'on Conv1D', FEATURE, ['c_attn', '[in, out]', type], storeTransposed),
  ),
  ...(['LOHA', 'LOKR', 'OFT'] as const).map((type) => ({
    ...bad(type, 'on Conv1D as NF4', FEATURE, ['c_attn', '[in, out]', type], storeTransposed),
    options: { mergeOnto: 'simulated_nf4' } as const,
  })),
  ...(['ADALORA', 'VERA', 'LOHA', 'LOKR', 'IA3', 'OFT'] as const).map((type) =>
    bad(type, 'of another base', 'adapter.shape-mismatch', ['[72, 72]'], (_, base) => {
      const name = `${MODULE}.weight`;
      alter(base, name, randomTensor(random, name, 'BF16', [72, 72]));
    }),
  ),
  ...(['ADALORA', 'VERA', 'LOHA', 'LOKR', 'IA3', 'OFT'] as const).map((type) =>
    bad(type, 'without a module', 'adapter.target-without-tensors', ['q_proj'], (adapter) => {
      adapter.tensors = adapter.tensors.filter(({ name }) => !name.startsWith(STEM));
    }),
  ),
  bad('IA3', 'of unknown orientation', 'adapter.ambiguous-orientation', [MODULE], (adapter) => {
    adapter.config['fan_in_fan_out'] = true;
    adapter.config['target_modules'] = ['q_proj'];
    adapter.tensors = adapter.tensors.filter(({ name }) => name.includes('q_proj'));
  }),
];

describe('an adapter beside LoRA, by its configuration:', () => {
  test.each(CONFIGURATIONS)('$what', expectRefusal);
});

describe('an adapter beside LoRA, by its tensors:', () => {
  test.each(TENSORS)('$what', expectRefusal);
});

describe('an adapter beside LoRA, by its base:', () => {
  test.each(BASES)('$what', expectRefusal);
});

test('shared blocks that do not fill the inputs of a layer are refused', async () => {
  await expectRefusal(
    bad('OFT', '', 'adapter.shape-mismatch', [MODULE], (adapter) => {
      adapter.config['block_share'] = true;
      for (const { name } of [...adapter.tensors]) {
        alter(adapter, name, randomTensor(random, name, 'F32', [1, (7 * 6) / 2]));
      }
    }),
  );
});

test.each(['default', 'mine'])('tensors saved live, as %s, are the same', async (live) => {
  const adapter = kindAdapter('LOHA');
  const renamed = kindAdapter('LOHA');
  renamed.tensors = renamed.tensors.map((each) => ({ ...each, name: `${each.name}.${live}` }));
  const [plan, other] = [await planFor(tinyBase(), adapter), await planFor(tinyBase(), renamed)];
  const kinds = (each: typeof plan) =>
    each.shards.flatMap(({ tensors }) => tensors.map(({ changes }) => changes?.[0]?.kind));
  expect(kinds(other)).toEqual(kinds(plan));
  expect(kinds(plan).filter((kind) => kind === 'hadamard')).toHaveLength(4);
});
