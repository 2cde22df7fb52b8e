import { describe, test } from 'vitest';
import { Random } from '../../doubles/random.ts';
import { alter, randomTensor, type TinyModel } from '../../doubles/tiny-model.ts';
import { type BadInput, expectRefusal } from './expect-refusal.ts';

const MODULE = 'model.layers.0.self_attn.q_proj';
const STEM = `base_model.model.${MODULE}`;
const A = `${STEM}.lora_A.weight`;
const B = `${STEM}.lora_B.weight`;
const random = new Random(3);

function add(adapter: TinyModel, name: string, ...shape: number[]): void {
  adapter.tensors.push(randomTensor(random, name, 'F32', shape));
}

function rename(adapter: TinyModel, change: (name: string) => string): void {
  adapter.tensors = adapter.tensors.map((each) => ({ ...each, name: change(each.name) }));
}

const added = (what: string, name: string, code: BadInput['code'], names: string[]): BadInput => ({
  what,
  code,
  names: [...names, name],
  spoil: ({ adapter }) => add(adapter, name, 4, 64),
});

const FEATURE = 'adapter.unsupported-feature';

const NAMES: readonly BadInput[] = [
  {
    what: 'a trained bias that the base has no place for',
    code: 'adapter.unbound-tensor',
    names: ['"a"', `"${MODULE}.bias"`],
    spoil: ({ adapter }) => add(adapter, `${STEM}.base_layer.bias`, 64),
  },
  added(
    'one factor of fused experts',
    'base_model.model.model.layers.0.mlp.experts.lora_A.weight',
    'adapter.half-pair',
    ['mlp.experts', 'lora_B'],
  ),
  added('several parameters of a module', `${STEM}.base_layer.lora_A.weight`, FEATURE, [
    'several parameters',
  ]),
  added('kohya names', 'lora_unet.q_proj.lora_down.weight', FEATURE, ['kohya']),
  added('AdaLoRA', `${STEM}.lora_E`, FEATURE, ['AdaLoRA']),
  added('LoHa', `${STEM}.hada_w1_a`, FEATURE, ['LoHa']),
  added('(IA)³', `${STEM}.ia3_l`, FEATURE, ['(IA)³']),
  added('LoKr', `${STEM}.lokr_w1`, FEATURE, ['LoKr']),
  added('OFT', `${STEM}.oft_R.weight`, FEATURE, ['OFT']),
  added('VeRA', `${STEM}.vera_lambda_b`, FEATURE, ['VeRA']),
  added('no prefix', 'model.layers.0.self_attn.q_proj.lora_A.weight', 'adapter.unknown-key', []),
  added('an unknown part of LoRA', `${STEM}.lora_C.weight`, 'adapter.unknown-key', []),
  added(
    'the same half in another spelling',
    `${STEM}.lora_A.default.weight`,
    'adapter.duplicate-key',
    [],
  ),
];

const BINDINGS: readonly BadInput[] = [
  {
    what: 'names of which none fits',
    code: 'adapter.unbound-tensor',
    names: [
      '8 of 8',
      '"a"',
      `"model.language_model.layers.0.self_attn.q_proj.weight"`,
      `"${MODULE}.weight"`,
    ],
    spoil: ({ adapter }) => {
      // Four pairs and four whole tensors.
      rename(adapter, (name) => name.replace('.model.model.', '.model.model.language_model.'));
      for (const layer of [0, 1, 2, 3]) add(adapter, `base_model.model.strange.${layer}.weight`, 4);
    },
  },
  {
    what: 'names of which half fit',
    code: 'adapter.unbound-tensor',
    names: ['2 of 4', '"model.layers.11.self_attn.q_proj.weight"'],
    spoil: ({ adapter }) => rename(adapter, (name) => name.replace('layers.1.', 'layers.11.')),
  },
  {
    what: 'names of which half lack the prefix of the base',
    code: 'adapter.unbound-tensor',
    names: ['2 of 4', '"layers.1.self_attn.q_proj.weight"'],
    spoil: ({ adapter }) => rename(adapter, (name) => name.replace('model.layers.1.', 'layers.1.')),
  },
  {
    what: 'names that fit under two prefixes',
    code: 'adapter.ambiguous-binding',
    names: ['"a"', 'more than one way'],
    spoil: ({ base, adapter }) => {
      const copies = base.tensors.filter((each) => each.name.startsWith('model.layers.'));
      for (const each of copies) {
        base.tensors.push({ ...each, name: each.name.replace('model.', 'transformer.') });
      }
      rename(adapter, (name) => name.replace('model.layers.', 'layers.'));
    },
  },
  {
    what: 'two names for one tensor',
    code: 'adapter.ambiguous-binding',
    names: ['"a"', '"layers.0.self_attn.q_proj.weight"', 'without-prefix model.'],
    spoil: ({ base, adapter }) => {
      base.tensors = base.tensors.map((each) => ({
        ...each,
        name: each.name.replace(/^model\./, ''),
      }));
      add(adapter, 'base_model.model.layers.0.self_attn.q_proj.lora_A.weight', 4, 64);
      add(adapter, 'base_model.model.layers.0.self_attn.q_proj.lora_B.weight', 64, 4);
    },
  },
  {
    what: 'two whole tensors for one',
    code: 'adapter.ambiguous-binding',
    names: ['"a"', '"norm.weight"'],
    spoil: ({ base, adapter }) => {
      base.tensors = base.tensors.map((each) => ({
        ...each,
        name: each.name.replace(/^model\./, ''),
      }));
      add(adapter, 'base_model.model.norm.weight', 64);
      add(adapter, 'base_model.model.model.norm.weight', 64);
    },
  },
  {
    what: 'a target of the configuration left out',
    code: 'adapter.target-without-tensors',
    names: ['"a"', '2 modules', 'model.layers.0.mlp.up_proj'],
    spoil: ({ adapter }) => {
      adapter.config['target_modules'] = ['q_proj', 'v_proj', 'up_proj'];
    },
  },
  {
    what: 'one layer of its targets left out',
    code: 'adapter.target-without-tensors',
    names: ['"a"', '1 modules', 'model.layers.1.self_attn.v_proj'],
    spoil: ({ adapter }) => {
      adapter.tensors = adapter.tensors.filter(
        (each) => !each.name.includes('layers.1.self_attn.v_proj'),
      );
    },
  },
  {
    what: 'tied embeddings trained as one, and two of them',
    code: FEATURE,
    names: ['adapter/adapter_config.json', 'ensure_weight_tying'],
    spoil: ({ base, adapter }) => {
      base.config['tie_word_embeddings'] = true;
      alter(base, 'lm_head.weight');
      adapter.config['ensure_weight_tying'] = true;
      add(adapter, 'base_model.model.model.embed_tokens.weight', 100, 64);
      add(adapter, 'base_model.model.lm_head.weight', 100, 64);
    },
  },
];

const EMBEDDING = 'model.embed_tokens';
const EMBEDDING_STEM = `base_model.model.${EMBEDDING}`;

/** Gives both layers of the tiny model's q_proj a bias. */
function addBiases({ tensors }: TinyModel): void {
  for (const layer of [0, 1]) {
    const name = `model.layers.${layer}.self_attn.q_proj.bias`;
    tensors.push(randomTensor(random, name, 'BF16', [64]));
  }
}

/** Leaves an adapter with LoRA on q_proj alone, whose B have biases of a length. */
function biasB(adapter: TinyModel, length: number): void {
  adapter.config['lora_bias'] = true;
  adapter.config['target_modules'] = ['q_proj'];
  adapter.tensors = adapter.tensors.filter(({ name }) => name.includes('q_proj'));
  for (const layer of [0, 1]) {
    add(adapter, `base_model.model.model.layers.${layer}.self_attn.q_proj.lora_B.bias`, length);
  }
}

const BIASES: readonly BadInput[] = [
  {
    what: 'a bias of B that the base has no place for',
    code: 'adapter.unbound-tensor',
    names: ['"a"', `"${MODULE}"`, `"${MODULE}.bias"`, 'lora_bias'],
    spoil: ({ adapter }) => biasB(adapter, 64),
  },
  {
    what: 'a bias of B that its configuration does not speak of',
    code: 'adapter.half-pair',
    names: ['/adapter', `"${MODULE}"`, 'lora_bias: false'],
    spoil: ({ base, adapter }) => {
      addBiases(base);
      biasB(adapter, 64);
      adapter.config['lora_bias'] = false;
    },
  },
  {
    what: 'no bias of B where its configuration speaks of one',
    code: 'adapter.half-pair',
    names: ['/adapter', `"${MODULE}"`, 'lora_bias: true'],
    spoil: ({ adapter }) => {
      adapter.config['lora_bias'] = true;
    },
  },
  {
    what: 'a bias of B of another length than B',
    code: 'adapter.bad-shape',
    names: ['/adapter', `"${MODULE}"`, '[32]', '[64]'],
    spoil: ({ base, adapter }) => {
      addBiases(base);
      biasB(adapter, 32);
    },
  },
  {
    what: 'a base with a bias of another length',
    code: 'adapter.unbound-tensor',
    names: ['"a"', `"${MODULE}.bias"`, '[64]'],
    spoil: ({ base, adapter }) => {
      addBiases(base);
      alter(base, `${MODULE}.bias`, { shape: [32], data: random.floats('BF16', 32) });
      biasB(adapter, 64);
    },
  },
  {
    what: 'its trained biases left out',
    code: 'adapter.target-without-tensors',
    names: ['"a"', 'bias: lora_only', 'lacks 1', 'model.layers.1.self_attn.q_proj.bias'],
    spoil: ({ base, adapter }) => {
      addBiases(base);
      adapter.config['bias'] = 'lora_only';
      add(adapter, `${STEM}.base_layer.bias`, 64);
    },
  },
  {
    what: 'the biases of other layers left out',
    code: 'adapter.target-without-tensors',
    names: ['"a"', 'bias: all', 'lacks 2', `${MODULE}.bias`],
    spoil: ({ base, adapter }) => {
      addBiases(base);
      adapter.config['bias'] = 'all';
    },
  },
];

const SHAPES: readonly BadInput[] = [
  {
    what: 'half of the LoRA of an embedding',
    code: 'adapter.half-pair',
    names: ['/adapter', `"${EMBEDDING}"`, 'no lora_B'],
    spoil: ({ adapter }) => add(adapter, `${EMBEDDING_STEM}.lora_embedding_A`, 4, 100),
  },
  {
    what: 'half of the LoRA of an embedding and half of that of a layer',
    code: 'adapter.half-pair',
    names: ['/adapter', `"${EMBEDDING}"`],
    spoil: ({ adapter }) => {
      add(adapter, `${EMBEDDING_STEM}.lora_embedding_A`, 4, 100);
      add(adapter, `${EMBEDDING_STEM}.lora_B.weight`, 64, 4);
    },
  },
  {
    what: 'LoRA on an embedding in the orientation of a layer',
    code: 'adapter.shape-mismatch',
    names: ['"a"', `"${EMBEDDING}"`, '[64, 100]', '[100, 64]'],
    spoil: ({ adapter }) => {
      add(adapter, `${EMBEDDING_STEM}.lora_embedding_A`, 4, 64);
      add(adapter, `${EMBEDDING_STEM}.lora_embedding_B`, 100, 4);
    },
  },
  {
    what: 'LoRA on an embedding of another vocabulary',
    code: 'adapter.shape-mismatch',
    names: ['"a"', `"${EMBEDDING}"`, '[103, 64]', '[100, 64]'],
    spoil: ({ adapter }) => {
      add(adapter, `${EMBEDDING_STEM}.lora_embedding_A`, 4, 103);
      add(adapter, `${EMBEDDING_STEM}.lora_embedding_B`, 64, 4);
    },
  },
  {
    what: 'LoRA on an embedding beside that of a layer of the same name',
    code: 'adapter.ambiguous-binding',
    names: ['"a"', `"${EMBEDDING}.weight"`],
    spoil: ({ adapter }) => {
      add(adapter, `${EMBEDDING_STEM}.lora_embedding_A`, 4, 100);
      add(adapter, `${EMBEDDING_STEM}.lora_embedding_B`, 64, 4);
      add(adapter, `${EMBEDDING_STEM}.lora_A.weight`, 4, 64);
      add(adapter, `${EMBEDDING_STEM}.lora_B.weight`, 100, 4);
    },
  },
  {
    what: 'half of a pair',
    code: 'adapter.half-pair',
    names: ['/adapter', `"${MODULE}"`, 'no lora_B'],
    spoil: ({ adapter }) => alter(adapter, B),
  },
  {
    what: 'the other half of a pair',
    code: 'adapter.half-pair',
    names: ['/adapter', `"${MODULE}"`, 'no lora_A'],
    spoil: ({ adapter }) => alter(adapter, A),
  },
  {
    what: 'halves of different ranks',
    code: 'adapter.bad-shape',
    names: ['/adapter', `"${MODULE}"`, '[8, 64]'],
    spoil: ({ adapter }) => alter(adapter, A, { shape: [8, 64], data: random.floats('F32', 512) }),
  },
  {
    what: 'a convolution',
    code: 'adapter.bad-shape',
    names: ['/adapter', `"${MODULE}"`, 'convolutions'],
    spoil: ({ adapter }) => alter(adapter, A, { shape: [4, 64, 1, 1] }),
  },
  {
    what: 'a half with one dimension',
    code: 'adapter.bad-shape',
    names: ['/adapter', `"${MODULE}"`],
    spoil: ({ adapter }) => alter(adapter, A, { shape: [256] }),
  },
  {
    what: 'a weight of another size',
    code: 'adapter.shape-mismatch',
    names: ['"a"', `"${MODULE}"`, '[64, 64]', '[64, 60]', 'tiny'],
    spoil: ({ adapter }) => alter(adapter, A, { shape: [4, 60], data: random.floats('F32', 240) }),
  },
  {
    what: 'a whole tensor of another size',
    code: 'adapter.shape-mismatch',
    names: ['"a"', '"lm_head.weight"', '[100, 64]', '[103, 64]', 'vocabulary'],
    spoil: ({ adapter }) => add(adapter, 'base_model.model.lm_head.weight', 103, 64),
  },
  {
    what: 'a weight the other way round',
    code: 'adapter.shape-mismatch',
    names: ['"a"', '"model.layers.0.self_attn.v_proj"', '[64, 32]', '[32, 64]'],
    spoil: ({ base }) => alter(base, 'model.layers.0.self_attn.v_proj.weight', { shape: [64, 32] }),
  },
  {
    what: 'a target that is a vector',
    code: 'adapter.shape-mismatch',
    names: ['"a"', '"model.norm"'],
    spoil: ({ adapter }) => {
      add(adapter, 'base_model.model.model.norm.lora_A.weight', 4, 64);
      add(adapter, 'base_model.model.model.norm.lora_B.weight', 64, 4);
    },
  },
  {
    what: 'another rank than the configuration',
    code: 'adapter.rank-mismatch',
    names: ['/adapter', `"${MODULE}"`, 'rank 4', '16'],
    spoil: ({ adapter }) => {
      adapter.config['r'] = 16;
    },
  },
  {
    what: 'another rank than its pattern',
    code: 'adapter.rank-mismatch',
    names: ['/adapter', '"model.layers.1.self_attn.q_proj"', 'rank 4', '8'],
    spoil: ({ adapter }) => {
      adapter.config['rank_pattern'] = { 'layers.1.self_attn.q_proj': 8 };
    },
  },
  {
    what: 'a square weight that may be stored either way',
    code: 'adapter.ambiguous-orientation',
    names: ['"a"', '.self_attn.q_proj"', 'fan_in_fan_out'],
    spoil: ({ base, adapter }) => {
      base.config['model_type'] = 'unknown';
      adapter.config['fan_in_fan_out'] = true;
      adapter.config['target_modules'] = ['q_proj'];
      adapter.tensors = adapter.tensors.filter((each) => each.name.includes('q_proj'));
    },
  },
];

describe('an adapter that has', () => {
  test.each(NAMES)('$what', expectRefusal);
  test.each(BINDINGS)('$what', expectRefusal);
  test.each(BIASES)('$what', expectRefusal);
  test.each(SHAPES)('$what', expectRefusal);
});
