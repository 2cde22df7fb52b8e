import { describe, test } from 'vitest';
import { INDEX_FILE } from '../../../engine/safetensors/weight-index.ts';
import { alter, baseFiles } from '../../doubles/tiny-model.ts';
import { writeSafetensors } from '../../doubles/write-safetensors.ts';
import { type BadInput, expectRefusal, type Inputs } from './expect-refusal.ts';

const SECOND = 'model-00002-of-00003.safetensors';

type WeightMap = Record<string, string>;

/** A base of three shards whose index is changed. */
function withIndex(change: (map: WeightMap) => WeightMap | undefined): BadInput['spoil'] {
  return ({ base }) => {
    base.shards = 3;
    const text = new TextDecoder().decode(baseFiles(base).get(INDEX_FILE));
    const index = JSON.parse(text) as { weight_map: WeightMap };
    index.weight_map = change(index.weight_map) ?? index.weight_map;
    base.files[INDEX_FILE] = JSON.stringify(index);
  };
}

function withIndexText(text: string): BadInput['spoil'] {
  return ({ base }) => {
    base.shards = 3;
    base.files[INDEX_FILE] = text;
  };
}

function mapped(file: string): BadInput['spoil'] {
  return withIndex((map) => ({ ...map, 'model.norm.weight': file }));
}

function withConfig(change: Record<string, unknown>): BadInput['spoil'] {
  return ({ base }) => {
    Object.assign(base.config, change);
  };
}

const unsafe = (what: string, file: string): BadInput => ({
  what: `an index that names ${what}`,
  code: 'checkpoint.index-unsafe-path',
  names: [INDEX_FILE, JSON.stringify(file.slice(0, 100)).slice(0, -1)],
  spoil: mapped(file),
});

const INDEXES: readonly BadInput[] = [
  {
    what: 'an index that is not JSON',
    code: 'checkpoint.index-not-json',
    names: [INDEX_FILE],
    spoil: withIndexText('{"weight_map": '),
  },
  {
    what: 'an index that nests without end',
    code: 'checkpoint.index-not-json',
    names: [INDEX_FILE],
    spoil: withIndexText(`{"a":${'['.repeat(50_000)}${']'.repeat(50_000)}}`),
  },
  {
    what: 'an empty index',
    code: 'checkpoint.index-invalid',
    names: [INDEX_FILE, 'weight_map'],
    spoil: withIndexText('{"weight_map": {}}'),
  },
  {
    what: 'an index without a map',
    code: 'checkpoint.index-invalid',
    names: [INDEX_FILE, 'weight_map'],
    spoil: withIndexText('[]'),
  },
  {
    what: 'an index with a number for a file',
    code: 'checkpoint.index-invalid',
    names: [INDEX_FILE, 'weight_map'],
    spoil: withIndexText('{"weight_map": {"model.norm.weight": 1}}'),
  },
  {
    what: 'an index that names a file that is not there',
    code: 'checkpoint.index-missing-file',
    names: [INDEX_FILE, SECOND],
    spoil: (inputs) => {
      withIndex(() => undefined)(inputs);
      inputs.base.files[SECOND] = null;
    },
  },
  {
    what: 'an index that names a tensor that is not there',
    code: 'checkpoint.index-missing-tensor',
    names: [SECOND, '"model.extra.weight"'],
    spoil: withIndex((map) => ({ ...map, 'model.extra.weight': SECOND })),
  },
  {
    what: 'an index that has a tensor in the wrong file',
    code: 'checkpoint.index-missing-tensor',
    names: [SECOND, '"model.norm.weight"'],
    spoil: mapped(SECOND),
  },
  {
    what: 'a file with a tensor that the index does not list',
    code: 'checkpoint.index-unlisted-tensor',
    names: ['model-00003-of-00003.safetensors', '"model.norm.weight"'],
    spoil: withIndex(({ 'model.norm.weight': _omitted, ...map }) => map),
  },
  {
    what: 'the same tensor in two files',
    code: 'checkpoint.duplicate-tensor',
    names: [SECOND, 'model-00001-of-00003.safetensors', '"model.embed_tokens.weight"'],
    spoil: (inputs) => {
      withIndex(() => undefined)(inputs);
      const { tensors } = inputs.base;
      const perShard = Math.ceil(tensors.length / 3);
      const second = [...tensors.slice(perShard, 2 * perShard), ...tensors.slice(0, 1)];
      inputs.base.files[SECOND] = writeSafetensors(second);
    },
  },
  unsafe('a file above', '../x.safetensors'),
  unsafe('an absolute path', '/etc/x.safetensors'),
  unsafe('a file below', 'sub/x.safetensors'),
  unsafe('a file with a backslash', '..\\x.safetensors'),
  unsafe('a hidden file', '.x.safetensors'),
  unsafe('a pickle', 'pytorch_model.bin'),
  unsafe('a file with a NUL', 'x\0.safetensors'),
  unsafe('a name of a megabyte', `${'x'.repeat(1e6)}`),
];

function onlyFiles(files: Record<string, string>): (inputs: Inputs) => void {
  return ({ base }) => {
    base.files = { 'model.safetensors': null, ...files };
  };
}

const DIRECTORIES: readonly BadInput[] = [
  {
    what: 'no weights',
    code: 'checkpoint.no-weights',
    names: ['/base', 'model.safetensors'],
    spoil: onlyFiles({}),
  },
  {
    what: 'shards without an index',
    code: 'checkpoint.no-weights',
    names: ['/base', 'model-00001-of-00002.safetensors', INDEX_FILE],
    spoil: onlyFiles({ 'model-00001-of-00002.safetensors': '' }),
  },
  {
    what: 'pickles only',
    code: 'checkpoint.pickle-only',
    names: ['/base'],
    spoil: onlyFiles({ 'pytorch_model.bin': 'PK' }),
  },
  {
    what: 'sharded training state',
    code: 'checkpoint.training-shards',
    names: ['/base', 'accelerate merge-weights'],
    spoil: onlyFiles({ '__0_0.distcp': 'x', '__1_0.distcp': 'x' }),
  },
  {
    what: 'a side file with an unsafe name',
    code: 'side-file.unsafe',
    names: ['modeling_*.py'],
    spoil: ({ base }) => {
      base.files['modeling_*.py'] = '';
    },
  },
];

const CONFIGS: readonly BadInput[] = [
  {
    what: 'no config.json',
    code: 'checkpoint.config-missing',
    names: ['/base', 'config.json'],
    spoil: ({ base }) => {
      base.files['config.json'] = null;
    },
  },
  {
    what: 'a config.json that is not JSON',
    code: 'checkpoint.config-invalid',
    names: ['base/config.json'],
    spoil: ({ base }) => {
      base.files['config.json'] = '{"model_type": llama}';
    },
  },
  {
    what: 'a config.json that is not UTF-8',
    code: 'checkpoint.config-invalid',
    names: ['base/config.json'],
    spoil: ({ base }) => {
      base.files['config.json'] = new Uint8Array([0x7b, 0xff, 0x7d]);
    },
  },
  {
    what: 'a config.json that nests without end',
    code: 'checkpoint.config-invalid',
    names: ['base/config.json'],
    spoil: ({ base }) => {
      base.files['config.json'] = `{"a":${'['.repeat(50_000)}${']'.repeat(50_000)}}`;
    },
  },
  {
    what: 'a config.json that is a list',
    code: 'checkpoint.config-invalid',
    names: ['base/config.json'],
    spoil: ({ base }) => {
      base.files['config.json'] = '[]';
    },
  },
  {
    what: 'tie_word_embeddings in quotes',
    code: 'checkpoint.config-invalid',
    names: ['base/config.json', 'tie_word_embeddings'],
    spoil: withConfig({ tie_word_embeddings: 'true' }),
  },
  {
    what: 'a base quantised by who knows what',
    code: 'checkpoint.quantized-base',
    names: ['base/config.json', 'quantization_config'],
    spoil: withConfig({ quantization_config: { bits: 4 } }),
  },
  {
    what: 'a base quantised by a method that is not dequantised',
    code: 'checkpoint.quantized-base',
    names: ['base/config.json', 'quantization_config', 'compressed-tensors'],
    spoil: ({ base }) => {
      base.config['quantization_config'] = { quant_method: 'compressed-tensors', bits: 4 };
      const name = 'model.layers.0.self_attn.q_proj.weight';
      alter(base, name, { dtype: 'I32', shape: [8, 64], data: new Uint8Array(2048) });
    },
  },
  {
    what: 'a targeted weight of a dtype that is not merged',
    code: 'checkpoint.unsupported-dtype',
    names: ['"model.layers.1.self_attn.v_proj.weight"', 'F8_E4M3'],
    spoil: ({ base }) => {
      const name = 'model.layers.1.self_attn.v_proj.weight';
      alter(base, name, { dtype: 'F8_E4M3', data: new Uint8Array(32 * 64) });
    },
  },
];

describe('a checkpoint with', () => {
  test.each(INDEXES)('$what', expectRefusal);
});

describe('a base directory with', () => {
  test.each(DIRECTORIES)('$what', expectRefusal);
});

describe('a base with', () => {
  test.each(CONFIGS)('$what', expectRefusal);

  test('a model type that every object has is an ordinary unknown one', async () => {
    // The adapter is spoilt in a way that is found after the architecture was looked up.
    await expectRefusal({
      what: 'model_type constructor',
      code: 'adapter.non-finite',
      names: ['lora_A'],
      spoil: ({ base, adapter }) => {
        base.config['model_type'] = 'constructor';
        const name = adapter.tensors[0]?.name ?? '';
        alter(adapter, name, { data: new Uint8Array(4 * 64 * 4).fill(0xff) });
      },
    });
  });
});
