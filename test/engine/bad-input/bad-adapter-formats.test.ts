import { describe, test } from 'vitest';
import {
  alphaTensor,
  type KohyaOptions,
  makeKohya,
  makeMlx,
} from '../../doubles/foreign-adapters.ts';
import { type TestTensor, writeSafetensors } from '../../doubles/write-safetensors.ts';
import { type BadInput, expectRefusal } from './expect-refusal.ts';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';
const LORA = { rank: 4, scale: 2 };

type Change = (tensors: TestTensor[]) => TestTensor[];

const kohya =
  (options: KohyaOptions): BadInput['spoil'] =>
  ({ adapter }) =>
    makeKohya(adapter, options);

const mlx =
  (config: Record<string, unknown>, change?: Change): BadInput['spoil'] =>
  ({ adapter }) =>
    makeMlx(adapter, { lora_parameters: LORA, ...config }, change);

const files =
  (changes: Record<string, Uint8Array | string | null>): BadInput['spoil'] =>
  ({ adapter }) => {
    Object.assign(adapter.files, changes);
  };

/** Gives the first tensor another name, or what a change makes of it. */
const first =
  (change: (tensor: TestTensor) => Partial<TestTensor>): Change =>
  ([tensor, ...others]) => [
    { ...(tensor as TestTensor), ...change(tensor as TestTensor) },
    ...others,
  ];

const named = (name: (old: string) => string): Change =>
  first((each) => ({ name: name(each.name) }));

const KOHYA: readonly BadInput[] = [
  ...['lora_unet_', 'lora_te_', 'lora_te1_', 'unet.'].map(
    (prefix): BadInput => ({
      what: `parts of an image model (${prefix})`,
      code: 'adapter.unsupported-feature',
      names: ['style.safetensors', `"${prefix}`, 'image model'],
      spoil: kohya({ prefix }),
    }),
  ),
  {
    what: 'the metadata of an image model',
    code: 'adapter.unsupported-feature',
    names: ['style.safetensors', 'sdxl_base_v1-0', 'image model'],
    spoil: kohya({ metadata: { ss_base_model_version: 'sdxl_base_v1-0' } }),
  },
  ...['lora_mid.weight', 'dora_scale', 'hada_w1_a', 'lokr_w1', 'diff_b'].map(
    (part): BadInput => ({
      what: `${part} in the kohya layout`,
      code: 'adapter.unsupported-feature',
      names: ['style.safetensors', `.${part}"`],
      spoil: kohya({ change: named((old) => old.replace('lora_down.weight', part)) }),
    }),
  ),
  {
    what: 'a name of no layout and no configuration',
    code: 'adapter.unknown-key',
    names: ['style.safetensors', '"something"', CONFIG],
    spoil: kohya({ change: named(() => 'something') }),
  },
  {
    what: 'half a kohya pair',
    code: 'adapter.half-pair',
    names: ['lora_down', 'model_layers_0_self_attn_q_proj'],
    spoil: kohya({ change: ([, ...others]) => others }),
  },
  {
    what: 'two spellings of one kohya module',
    code: 'adapter.duplicate-key',
    names: ['lycoris_'],
    spoil: kohya({
      change: ([one, ...others]) => [
        one as TestTensor,
        ...others,
        { ...(one as TestTensor), name: (one as TestTensor).name.replace('lora_', 'lycoris_') },
      ],
    }),
  },
  ...[0, -1, Number.NaN].map(
    (alpha): BadInput => ({
      what: `an alpha of ${alpha}`,
      code: 'adapter.bad-alpha',
      names: ['style.safetensors', '.alpha"', String(alpha)],
      spoil: kohya({ alpha: () => alpha }),
    }),
  ),
  {
    what: 'an alpha of two numbers',
    code: 'adapter.bad-alpha',
    names: ['style.safetensors', '[2]'],
    spoil: kohya({
      alpha: () => undefined,
      change: (tensors) => [
        ...tensors,
        {
          ...alphaTensor('lora_model_layers_0_self_attn_q_proj.alpha', 1),
          shape: [2],
          data: new Uint8Array(8),
        },
      ],
    }),
  },
  {
    what: 'kohya names that the base has not',
    code: 'adapter.unbound-tensor',
    names: ['model_layers_7_self_attn_q_proj'],
    spoil: kohya({
      change: (tensors) =>
        tensors.map((each) => ({ ...each, name: each.name.replace('layers_0', 'layers_7') })),
    }),
  },
  {
    what: 'a kohya name that two tensors of the base have',
    code: 'adapter.ambiguous-binding',
    names: ['model_layers_0_self_attn_q_proj'],
    spoil: (inputs) => {
      const q = inputs.base.tensors.find(({ name }) => name.includes('0.self_attn.q_proj'));
      inputs.base.tensors.push({
        ...(q as TestTensor),
        name: 'model.layers.0.self.attn.q_proj.weight',
      });
      makeKohya(inputs.adapter);
    },
  },
  {
    what: 'a kohya file that is a Git LFS pointer',
    code: 'safetensors.git-lfs-pointer',
    names: ['style.safetensors', 'git lfs pull'],
    spoil: files({
      [CONFIG]: null,
      [WEIGHTS]: null,
      'style.safetensors': 'version https://git-lfs.github.com/spec/v1\n',
    }),
  },
];

const MLX: readonly BadInput[] = [
  {
    what: 'fully trained weights of MLX',
    code: 'adapter.unsupported-feature',
    names: [CONFIG, '"full"', 'mlx_lm.fuse'],
    spoil: mlx({ fine_tune_type: 'full', lora_parameters: null }),
  },
  {
    what: 'no parameters of LoRA in MLX',
    code: 'adapter.config-invalid',
    names: [CONFIG, 'lora_parameters'],
    spoil: mlx({ lora_parameters: undefined }),
  },
  {
    what: 'no scale in MLX',
    code: 'adapter.config-invalid',
    names: [CONFIG, 'lora_parameters', 'scale'],
    spoil: mlx({ lora_parameters: { rank: 4 } }),
  },
  {
    what: 'no configuration of MLX',
    code: 'adapter.config-missing',
    names: [CONFIG, 'scale'],
    spoil: (inputs) => {
      mlx({})(inputs);
      inputs.adapter.files[CONFIG] = null;
    },
  },
  {
    what: 'a configuration of MLX that is no JSON',
    code: 'adapter.config-invalid',
    names: [CONFIG, 'JSON'],
    spoil: (inputs) => {
      mlx({})(inputs);
      inputs.adapter.files[CONFIG] = '{rank: 4}';
    },
  },
  {
    what: 'an alpha whose meaning depends on the version of MLX',
    code: 'adapter.bad-alpha',
    names: [CONFIG, 'alpha 16', 'scale to 40'],
    spoil: mlx({ lora_parameters: { rank: 4, alpha: 16, scale: 10 } }),
  },
  {
    what: 'another rank than MLX says',
    code: 'adapter.rank-mismatch',
    names: ['rank 4', 'gives it 8'],
    spoil: mlx({ lora_parameters: { rank: 8, scale: 2 } }),
  },
  {
    what: 'no magnitudes where MLX says DoRA',
    code: 'adapter.half-pair',
    names: ['lora_magnitude_vector'],
    spoil: mlx({ fine_tune_type: 'dora' }),
  },
  {
    what: 'factors of PEFT’s shape in MLX',
    code: 'adapter.bad-shape',
    names: ['lora_a [4, 64]', '[in, r]'],
    spoil: mlx(
      {},
      first(({ shape }) => ({ shape: shape.toReversed() })),
    ),
  },
  {
    what: 'factors of experts in MLX',
    code: 'adapter.unsupported-feature',
    names: ['experts', 'switch_mlp'],
    spoil: mlx({}, ([a, b]) =>
      [a, b].map((each) => {
        const tensor = each as TestTensor;
        const name = tensor.name.replace('self_attn.q_proj', 'mlp.switch_mlp.gate_proj');
        return { ...tensor, name, shape: [1, ...tensor.shape] };
      }),
    ),
  },
  {
    what: 'half a pair of MLX',
    code: 'adapter.half-pair',
    names: ['q_proj', 'lora_a'],
    spoil: mlx({}, ([, ...others]) => others),
  },
  {
    what: 'a tensor that MLX does not save',
    code: 'adapter.unknown-key',
    names: ['adapter', '"model.norm.weight"'],
    spoil: mlx(
      {},
      named(() => 'model.norm.weight'),
    ),
  },
  {
    what: 'weights of MLX that were cut off',
    code: 'safetensors.truncated',
    names: ['adapters.safetensors'],
    spoil: (inputs) => {
      mlx({})(inputs);
      const whole = inputs.adapter.files['adapters.safetensors'] as Uint8Array;
      inputs.adapter.files['adapters.safetensors'] = whole.subarray(0, -1);
    },
  },
  {
    what: 'arrays of numpy, as MLX once wrote',
    code: 'adapter.weights-missing',
    names: ['adapters.npz', 'mx.save_safetensors'],
    spoil: files({ [WEIGHTS]: null, 'adapters.npz': 'PK' }),
  },
];

const SHARDS: readonly BadInput[] = [
  ['__0_0.distcp', 'accelerate merge-weights'],
  ['zero_to_fp32.py', 'zero_to_fp32.py'],
  ['mp_rank_00_model_states.pt', 'trainer'],
].map(
  ([path = '', says = '']): BadInput => ({
    what: `${path} of a training`,
    code: 'adapter.training-shards',
    names: ['/adapter', path, says],
    spoil: files({ [WEIGHTS]: null, [path]: 'state' }),
  }),
);

const PICKLES: readonly BadInput[] = [
  {
    what: 'a pickle that is a Git LFS pointer',
    code: 'safetensors.git-lfs-pointer',
    names: ['adapter_model.bin', 'git lfs pull'],
    spoil: files({
      [WEIGHTS]: null,
      'adapter_model.bin': 'version https://git-lfs.github.com/spec/v1\n',
    }),
  },
  {
    what: 'safetensors under the name of a pickle',
    code: 'adapter.pickle-damaged',
    names: ['adapter_model.bin'],
    spoil: ({ adapter }) => {
      Object.assign(adapter.files, {
        [WEIGHTS]: null,
        'adapter_model.bin': writeSafetensors(adapter.tensors),
      });
    },
  },
];

describe('an adapter with', () => {
  test.each([...KOHYA, ...MLX, ...SHARDS, ...PICKLES])('$what', expectRefusal);
});
