/** Adapters and bases that cut weights differently, in ways that are not exact or not whole. */
import { describe, test } from 'vitest';
import {
  expertModulesAdapter,
  fusedExpertsAdapter,
  tinyExperts,
} from '../../doubles/tiny-experts.ts';
import { alter, type TinyModel, tinyBase } from '../../doubles/tiny-model.ts';
import { type BadInput, expectRefusal, type Inputs } from './expect-refusal.ts';

const UNSUPPORTED = 'adapter.unsupported-feature';
const EXPERTS = 'base_model.model.model.layers.0.mlp.experts';

function set(inputs: Inputs, base: TinyModel, adapter: TinyModel): void {
  Object.assign(inputs.base, base);
  Object.assign(inputs.adapter, adapter);
}

function rename(model: TinyModel, from: string | RegExp, to: string): void {
  model.tensors = model.tensors.map((each) => ({ ...each, name: each.name.replace(from, to) }));
}

/** Of these, only the first rows or columns are read; a tensor's bytes must match its shape. */
function reshape(model: TinyModel, name: string, shape: readonly number[]): void {
  const tensor = model.tensors.find((each) => each.name === name)!;
  const size = tensor.data.length / tensor.shape.reduce((a, b) => a * b, 1);
  const count = shape.reduce((a, b) => a * b, size);
  alter(model, name, { shape, data: new Uint8Array(count).map((_, i) => tensor.data[i % 64]!) });
}

function remove(model: TinyModel, pattern: RegExp): void {
  model.tensors = model.tensors.filter(({ name }) => !pattern.test(name));
}

const SQUARE = { hidden: 24, intermediate: 24 };

const ON_EXPERTS: readonly BadInput[] = [
  {
    what: 'square parameters only, and no version of PEFT',
    code: 'adapter.ambiguous-orientation',
    names: ['mlp.experts.down_proj', '[24, 24]', 'peft_version'],
    spoil: (inputs) => {
      set(inputs, tinyExperts(SQUARE), fusedExpertsAdapter(SQUARE));
      remove(inputs.adapter, /base_layer/);
      inputs.adapter.config['target_parameters'] = ['mlp.experts.down_proj'];
    },
  },
  {
    what: 'square parameters only, and the version of PEFT that had either layout',
    code: 'adapter.ambiguous-orientation',
    names: ['mlp.experts.down_proj'],
    spoil: (inputs) => {
      set(inputs, tinyExperts(SQUARE), fusedExpertsAdapter(SQUARE));
      remove(inputs.adapter, /base_layer/);
      inputs.adapter.config['target_parameters'] = ['mlp.experts.down_proj'];
      inputs.adapter.config['peft_version'] = '0.19.0';
    },
  },
  {
    what: 'another number of experts',
    code: 'adapter.rank-mismatch',
    names: ['mlp.experts.gate_up_proj', '4 experts', 'rank 15'],
    spoil: (inputs) => set(inputs, tinyExperts(), fusedExpertsAdapter({ experts: 5 })),
  },
  {
    what: 'another rank',
    code: 'adapter.rank-mismatch',
    names: ['mlp.experts.gate_up_proj', 'rank 12', 'rank 6'],
    spoil: (inputs) => {
      set(inputs, tinyExperts(), fusedExpertsAdapter());
      inputs.adapter.config['r'] = 6;
    },
  },
  {
    what: 'no like shape in the base',
    code: 'adapter.shape-mismatch',
    names: ['mlp.experts', '64 inputs', '56 outputs', 'gate_up_proj [48, 64]'],
    spoil: (inputs) => set(inputs, tinyExperts(), fusedExpertsAdapter({ intermediate: 28 })),
  },
  {
    what: 'a base that lacks an expert in the middle',
    code: 'adapter.rank-mismatch',
    names: ['has 2 experts'],
    spoil: (inputs) => {
      set(inputs, tinyExperts(), fusedExpertsAdapter());
      remove(inputs.base, /experts\.2\./);
    },
  },
  {
    what: 'a base that lacks part of an expert',
    code: UNSUPPORTED,
    names: ['mlp.experts.1.up_proj.weight', 'not at all'],
    spoil: (inputs) => {
      set(inputs, tinyExperts(), fusedExpertsAdapter());
      remove(inputs.base, /experts\.1\.up_proj/);
    },
  },
  {
    what: 'two pairs of one shape',
    code: 'adapter.ambiguous-binding',
    names: ['mlp.experts.gate_up_proj'],
    spoil: (inputs) => {
      set(inputs, tinyExperts(), fusedExpertsAdapter());
      reshape(inputs.adapter, `${EXPERTS}.lora_A.weight`, [12, 64]);
      reshape(inputs.adapter, `${EXPERTS}.lora_B.weight`, [48, 12]);
    },
  },
  {
    what: 'one of its layers only',
    code: 'adapter.target-without-tensors',
    names: ['model.layers.1.mlp.experts.0'],
    spoil: (inputs) => set(inputs, tinyExperts({ layers: 2 }), fusedExpertsAdapter()),
  },
  {
    what: 'one of its parameters only',
    code: 'adapter.target-without-tensors',
    names: ['adapter_config.json', 'mlp.experts.down_proj'],
    spoil: (inputs) => {
      set(inputs, tinyExperts(), fusedExpertsAdapter());
      remove(inputs.adapter, /experts\.lora/);
    },
  },
  {
    what: 'target_parameters and no tensors for them',
    code: 'adapter.target-without-tensors',
    names: ['mlp.experts.gate_up_proj'],
    spoil: ({ adapter }) => {
      adapter.config['target_parameters'] = ['mlp.experts.gate_up_proj'];
    },
  },
  {
    what: 'an architecture that is not known',
    code: UNSUPPORTED,
    names: ['mlp.experts', 'strange_moe'],
    spoil: (inputs) => {
      set(inputs, tinyExperts(), fusedExpertsAdapter());
      inputs.base.config['model_type'] = 'strange_moe';
    },
  },
  {
    what: 'factors of one rank and half of another',
    code: 'adapter.bad-shape',
    names: ['mlp.experts', '[12, 64]', '[48, 11]'],
    spoil: (inputs) => {
      set(inputs, tinyExperts(), fusedExpertsAdapter());
      reshape(inputs.adapter, `${EXPERTS}.base_layer.lora_B.weight`, [48, 11]);
    },
  },
  {
    what: 'DoRA on fused experts, which PEFT does not have',
    code: UNSUPPORTED,
    names: ['mlp.experts', 'magnitude'],
    spoil: (inputs) => {
      set(inputs, tinyExperts(), fusedExpertsAdapter());
      const [first] = inputs.adapter.tensors;
      inputs.adapter.config['use_dora'] = true;
      inputs.adapter.tensors.push({ ...first!, name: `${EXPERTS}.lora_magnitude_vector` });
    },
  },
  {
    what: 'all experts but one, one by one, on fused ones',
    code: 'adapter.target-without-tensors',
    names: ['mlp.experts.gate_up_proj', 'expert 2 gate'],
    spoil: (inputs) => {
      set(inputs, tinyExperts({ fused: true }), expertModulesAdapter());
      remove(inputs.adapter, /experts\.2\./);
    },
  },
  {
    what: 'experts one by one, on fused ones that are stored [in, out]',
    code: UNSUPPORTED,
    names: ['mlp.experts.0.gate_proj', 'mlp.experts.gate_up_proj', 'alternating'],
    spoil: (inputs) => {
      set(inputs, tinyExperts({ fused: true }), expertModulesAdapter());
      inputs.base.config['model_type'] = 'gpt_oss';
    },
  },
  {
    what: 'more experts, one by one, than are fused',
    code: UNSUPPORTED,
    names: ['mlp.experts.4.gate_proj', 'no place for expert 4'],
    spoil: (inputs) =>
      set(inputs, tinyExperts({ fused: true }), expertModulesAdapter({ experts: 5 })),
  },
];

/** The tiny Llama with its projections fused, and its query and value alone trained. */
function fuseBase(base: TinyModel): void {
  Object.assign(base.config, { model_type: 'phi3', hidden_size: 64 });
  Object.assign(base.config, { num_attention_heads: 4, num_key_value_heads: 2 });
  remove(base, /[kv]_proj/);
  for (const layer of [0, 1])
    reshape(base, `model.layers.${layer}.self_attn.q_proj.weight`, [128, 64]);
  rename(base, 'q_proj', 'qkv_proj');
}

const ON_PROJECTIONS: readonly BadInput[] = [
  {
    what: 'parts that config.json divides in another way',
    code: UNSUPPORTED,
    names: ['self_attn.q_proj', 'qkv_proj.weight', '64 + 64 + 64', '[128, 64]'],
    spoil: ({ base }) => {
      fuseBase(base);
      delete base.config['num_key_value_heads'];
    },
  },
  {
    what: 'parts of other sizes',
    code: 'adapter.shape-mismatch',
    names: ['self_attn.q_proj', '[64, 64]', '[96, 64]'],
    spoil: ({ base }) => {
      fuseBase(base);
      Object.assign(base.config, { num_attention_heads: 6, num_key_value_heads: 1, head_dim: 16 });
    },
  },
  {
    what: 'parts that only one layer has',
    code: 'adapter.target-without-tensors',
    names: ['model.layers.1.self_attn.qkv_proj.weight', 'v_proj'],
    spoil: ({ base, adapter }) => {
      fuseBase(base);
      remove(adapter, /layers\.1\.self_attn\.v_proj/);
    },
  },
  {
    what: 'a part, in an architecture whose order is not known',
    code: UNSUPPORTED,
    names: ['self_attn.q_proj', 'qkv_proj.weight', 'codegen'],
    spoil: ({ base }) => {
      fuseBase(base);
      base.config['model_type'] = 'codegen';
    },
  },
  {
    what: 'a part of a layer whose heads alternate',
    code: UNSUPPORTED,
    names: ['self_attn.q_proj', 'query_key_value', 'alternate'],
    spoil: ({ base }) => {
      fuseBase(base);
      base.config['model_type'] = 'gpt_neox';
      rename(base, 'self_attn.qkv_proj', 'attention.query_key_value');
    },
  },
  {
    what: 'a layer whose heads alternate, and a base with its parts',
    code: UNSUPPORTED,
    names: ['self_attn.query_key_value', 'alternate'],
    spoil: ({ adapter }) => {
      remove(adapter, /v_proj/);
      rename(adapter, 'q_proj', 'query_key_value');
      adapter.config['target_modules'] = ['query_key_value'];
    },
  },
  {
    what: 'a fused layer of another size than its parts',
    code: 'adapter.shape-mismatch',
    names: ['self_attn.qkv_proj', '[64, 64]', '[128, 64]', 'k_proj'],
    spoil: ({ adapter }) => {
      remove(adapter, /v_proj/);
      rename(adapter, 'q_proj', 'qkv_proj');
      adapter.config['target_modules'] = ['qkv_proj'];
    },
  },
  {
    what: 'biases that were lost, of a layer that is fused in the adapter alone',
    code: 'adapter.target-without-tensors',
    names: ['lora_only', 'q_proj.bias'],
    spoil: ({ base, adapter }) => {
      remove(adapter, /v_proj/);
      for (const layer of [0, 1]) {
        const stem = `base_model.model.model.layers.${layer}.self_attn.q_proj`;
        reshape(adapter, `${stem}.lora_B.weight`, [128, 4]);
        const bias = base.tensors.find(({ name }) => name.includes(`${layer}.input_layernorm`))!;
        base.tensors.push({ ...bias, name: `model.layers.${layer}.self_attn.q_proj.bias` });
      }
      rename(adapter, 'q_proj', 'qkv_proj');
      Object.assign(adapter.config, { target_modules: ['qkv_proj'], bias: 'lora_only' });
    },
  },
  {
    what: 'a whole weight in place of a part',
    code: UNSUPPORTED,
    names: ['model.layers.0.self_attn.k_proj.weight', 'modules_to_save'],
    spoil: ({ base, adapter }) => {
      fuseBase(base);
      const whole = tinyBase().tensors.find(({ name }) => name.includes('0.self_attn.k_proj'))!;
      adapter.config['modules_to_save'] = ['k_proj'];
      adapter.tensors.push({ ...whole, name: `base_model.model.${whole.name}` });
    },
  },
];

const REPLICATED: readonly BadInput[] = [
  {
    what: 'more layers than the base has',
    code: 'adapter.shape-mismatch',
    names: ['adapter_config.json', '[[0,3]]', '2 layers'],
    spoil: ({ base, adapter }) => {
      base.config['num_hidden_layers'] = 2;
      adapter.config['layer_replication'] = [[0, 3]];
    },
  },
  {
    what: 'layers of different kinds',
    code: UNSUPPORTED,
    names: ['layer_replication', 'layer_types'],
    spoil: ({ base, adapter }) => {
      Object.assign(base.config, { num_hidden_layers: 2, model_type: 'qwen3' });
      base.config['layer_types'] = ['sliding_attention', 'full_attention'];
      adapter.config['layer_replication'] = [[0, 2]];
    },
  },
  {
    what: 'an architecture whose layers may differ',
    code: UNSUPPORTED,
    names: ['layer_replication', 'gemma2'],
    spoil: ({ base, adapter }) => {
      Object.assign(base.config, { num_hidden_layers: 2, model_type: 'gemma2' });
      adapter.config['layer_replication'] = [[0, 2]];
    },
  },
  {
    what: 'layers of a vision tower beside',
    code: UNSUPPORTED,
    names: ['layer_replication', 'vision_tower.layers.0.weight'],
    spoil: ({ base, adapter }) => {
      base.config['num_hidden_layers'] = 2;
      base.tensors.push({ ...base.tensors[0]!, name: 'vision_tower.layers.0.weight' });
      adapter.config['layer_replication'] = [[0, 2]];
    },
  },
  {
    what: 'sliding windows in some of them',
    code: UNSUPPORTED,
    names: ['layer_replication', 'sliding windows'],
    spoil: ({ base, adapter }) => {
      Object.assign(base.config, { num_hidden_layers: 2, model_type: 'qwen2' });
      base.config['use_sliding_window'] = true;
      adapter.config['layer_replication'] = [[0, 2]];
    },
  },
];

describe('an adapter on experts with', () => {
  test.each(ON_EXPERTS)('$what', expectRefusal);
});

describe('an adapter on projections with', () => {
  test.each(ON_PROJECTIONS)('$what', expectRefusal);
});

describe('an adapter on replicated layers with', () => {
  test.each(REPLICATED)('$what', expectRefusal);
});
