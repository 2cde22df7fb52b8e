import { describe, test } from 'vitest';
import { frame, writeSafetensors } from '../../doubles/write-safetensors.ts';
import { type BadInput, expectRefusal } from './expect-refusal.ts';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';

function withConfig(change: Record<string, unknown>): BadInput['spoil'] {
  return ({ adapter }) => {
    Object.assign(adapter.config, change);
  };
}

function withFiles(files: Record<string, Uint8Array | string | null>): BadInput['spoil'] {
  return ({ adapter }) => {
    Object.assign(adapter.files, files);
  };
}

const FILES: readonly BadInput[] = [
  {
    what: 'no configuration',
    code: 'adapter.config-missing',
    names: ['/adapter', CONFIG],
    spoil: withFiles({ [CONFIG]: null }),
  },
  {
    what: 'no weights',
    code: 'adapter.weights-missing',
    names: ['/adapter', WEIGHTS],
    spoil: withFiles({ [WEIGHTS]: null }),
  },
  {
    what: 'the beginning of a pickle for weights',
    code: 'adapter.pickle-damaged',
    names: ['/adapter', 'adapter_model.bin', 'its end is missing'],
    spoil: withFiles({ [WEIGHTS]: null, 'adapter_model.bin': 'PK\x03\x04' }),
  },
  {
    what: 'a pickle under the name of safetensors',
    code: 'safetensors.pickle',
    names: [`adapter/${WEIGHTS}`],
    spoil: withFiles({ [WEIGHTS]: 'PK\x03\x04\x00\x00\x08\x08adapter_model/data.pkl' }),
  },
  {
    what: 'metadata and no tensors',
    code: 'adapter.empty',
    names: [`adapter/${WEIGHTS}`, 'ZeRO-3'],
    spoil: withFiles({ [WEIGHTS]: frame('{"__metadata__":{"format":"pt"}}') }),
  },
  {
    what: 'tensors that were not gathered',
    code: 'adapter.empty-tensor',
    names: [`adapter/${WEIGHTS}`, '[0]', 'lora_A', 'ZeRO-3'],
    spoil: ({ adapter }) => {
      const tensors = adapter.tensors.map((t) => ({ ...t, shape: [0], data: new Uint8Array(0) }));
      adapter.files[WEIGHTS] = writeSafetensors(tensors);
    },
  },
];

const CONFIGS: readonly BadInput[] = [
  {
    what: 'that is not JSON',
    code: 'adapter.config-invalid',
    names: [`adapter/${CONFIG}`],
    spoil: withFiles({ [CONFIG]: "{'peft_type': 'LORA'}" }),
  },
  {
    what: 'that is null',
    code: 'adapter.config-invalid',
    names: [`adapter/${CONFIG}`],
    spoil: withFiles({ [CONFIG]: 'null' }),
  },
  {
    what: 'that nests without end',
    code: 'adapter.config-invalid',
    names: [`adapter/${CONFIG}`],
    spoil: withFiles({
      [CONFIG]: `{"peft_type":"LORA","a":${'['.repeat(50_000)}${']'.repeat(50_000)}}`,
    }),
  },
  {
    what: 'without a type',
    code: 'adapter.config-invalid',
    names: [`adapter/${CONFIG}`, 'peft_type'],
    spoil: withConfig({ peft_type: undefined }),
  },
  ...[
    ['BOFT', 'merge_and_unload'],
    ['PROMPT_TUNING', 'nothing to merge'],
    ['TOMORROWS', 'merge_and_unload'],
  ].map(
    ([type = '', says = '']): BadInput => ({
      what: `of type ${type}`,
      code: 'adapter.unsupported-type',
      names: [`adapter/${CONFIG}`, `"${type}"`, says],
      spoil: withConfig({ peft_type: type }),
    }),
  ),
  {
    what: 'of a type with a name of a megabyte',
    code: 'adapter.unsupported-type',
    names: [`adapter/${CONFIG}`],
    spoil: withConfig({ peft_type: 'X'.repeat(1e6) }),
  },
  {
    what: 'with rank 0',
    code: 'adapter.config-invalid',
    names: [`adapter/${CONFIG}`, 'r: '],
    spoil: withConfig({ r: 0 }),
  },
  {
    what: 'with a strength past all numbers',
    code: 'adapter.config-invalid',
    names: [`adapter/${CONFIG}`, 'lora_alpha'],
    spoil: withFiles({ [CONFIG]: '{"peft_type":"LORA","r":4,"lora_alpha":1e999}' }),
  },
  {
    what: 'with ten thousand problems',
    code: 'adapter.config-invalid',
    names: [`adapter/${CONFIG}`, 'and 9997 more'],
    spoil: withConfig({
      rank_pattern: Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`p${i}`, -1])),
    }),
  },
  {
    what: 'with a pattern that is no expression',
    code: 'adapter.bad-pattern',
    names: ['/adapter', 'rank_pattern', '"q_proj["'],
    spoil: withConfig({ rank_pattern: { 'q_proj[': 4 } }),
  },
  {
    what: 'with a pattern that only Python reads',
    code: 'adapter.bad-pattern',
    names: ['/adapter', 'alpha_pattern', '(?P<p>q)_proj'],
    spoil: withConfig({ alpha_pattern: { '(?P<p>q)_proj': 4 } }),
  },
  {
    what: 'with a pattern that JavaScript would read otherwise',
    code: 'adapter.bad-pattern',
    names: ['/adapter', 'alpha_pattern', 'q_proj'],
    spoil: withConfig({ alpha_pattern: { 'q_proj\\Z': 4 } }),
  },
  {
    what: 'with a pattern of two thousand characters',
    code: 'adapter.bad-pattern',
    names: ['/adapter', 'alpha_pattern'],
    spoil: withConfig({ alpha_pattern: { ['q'.repeat(2000)]: 4 } }),
  },
  {
    what: 'with a pattern that backtracks without end',
    code: 'adapter.bad-pattern',
    names: ['/adapter', 'alpha_pattern', 'backtracks'],
    spoil: ({ adapter }) => {
      adapter.config['alpha_pattern'] = { '(a+)+!': 4 };
      adapter.tensors = adapter.tensors.map((tensor) => ({
        ...tensor,
        name: tensor.name.replace('self_attn', 'a'.repeat(200)),
      }));
    },
  },
];

const refused = (key: string, value: unknown, name = key): BadInput => ({
  what: `${key}: ${JSON.stringify(value)}`,
  code: 'adapter.unsupported-feature',
  names: [`adapter/${CONFIG}`, name],
  spoil: withConfig({ [key]: value }),
});

const FEATURES: readonly BadInput[] = [
  {
    what: 'use_dora and lora_bias',
    code: 'adapter.unsupported-feature',
    names: [`adapter/${CONFIG}`, 'use_dora and lora_bias'],
    spoil: withConfig({ use_dora: true, lora_bias: true }),
  },
  refused('use_qalora', true),
  refused('bias', 'some'),
  refused('layer_replication', [[0, 2]]),
  refused('alora_invocation_tokens', [1, 2]),
  refused('init_lora_weights', 'pissa'),
  refused('init_lora_weights', 'olora'),
  refused('init_lora_weights', 'loftq'),
  refused('init_lora_weights', 'corda'),
  refused('use_tomorrows_variant', true),
  refused('use_tomorrows_variant', 0.5),
];

describe('an adapter with', () => {
  test.each(FILES)('$what', expectRefusal);
});

describe('an adapter configuration', () => {
  test.each(CONFIGS)('$what', expectRefusal);
});

describe('an adapter whose configuration says', () => {
  test.each(FEATURES)('$what', expectRefusal);
});
