/**
 * Layers that a base has otherwise than the adapter: fused projections and replicated layers, on
 * every kind of base as in kinds-on-bases.test.ts, and replicated ones of every architecture.
 */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { fuseProjections } from '../../doubles/fused-projections.ts';
import { mergeDirectories, readFiles, writeFiles } from '../../doubles/merge-directories.ts';
import { expectSameOntoDequantized, type Merge } from '../../doubles/merge-onto-dequantized.ts';
import { BASES, mergeOntoOf, quantized, withBiases } from '../../doubles/quantized-bases.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  baseFiles,
  randomTensor,
  type TinyAdapterOptions,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { loadTensors } from '../../golden/golden-case.ts';

const PARTS = ['self_attn.q_proj', 'self_attn.v_proj', 'mlp.up_proj', 'mlp.down_proj'] as const;
/** Layer 1 alone, both layers, and layer 0 again. */
const RANGES = [
  [1, 2],
  [0, 2],
  [0, 1],
];
const SOURCES = [1, 0, 1, 0];

/** The adapter's layers 0 and 1, and others of their shapes as layers 2 and 3. */
function onReplicated(targets: NonNullable<TinyAdapterOptions['targets']>): TinyModel {
  const adapter = tinyAdapter({ targets });
  const others = tinyAdapter({ targets, seed: 9 }).tensors.map((tensor) => ({
    ...tensor,
    name: tensor.name.replace(/layers\.(\d)/, (_, layer) => `layers.${Number(layer) + 2}`),
  }));
  adapter.tensors.push(...others);
  adapter.config['layer_replication'] = RANGES;
  return adapter;
}

const FUSED: Readonly<Record<string, Merge>> = {
  'DoRA on parts': [{}, () => [doraAdapter({ targets: PARTS })]],
  'LoRA on parts of replicated layers': [{}, () => [onReplicated(PARTS)]],
};

function layered(base: TinyModel): TinyModel {
  base.config['num_hidden_layers'] = 2;
  return base;
}

test.each(BASES)('projections that are fused, and replicated, on %s', async (kind) => {
  const base = quantized(kind, fuseProjections(layered(tinyBase())));
  await expectSameOntoDequantized(base, mergeOntoOf(kind), FUSED);
});

/** Adds tensors of these shapes to both layers. */
function addToLayers(base: TinyModel, shapes: Readonly<Record<string, number[]>>): TinyModel {
  const random = new Random(3);
  for (const layer of [0, 1]) {
    for (const [path, shape] of Object.entries(shapes)) {
      base.tensors.push(randomTensor(random, `model.layers.${layer}.${path}`, 'BF16', shape));
    }
  }
  return base;
}

function mixtral(): TinyModel {
  const base = tinyBase();
  base.tensors = base.tensors.filter(({ name }) => !name.includes('.mlp.'));
  const experts = [0, 1].flatMap((expert) => [
    [`block_sparse_moe.experts.${expert}.w1.weight`, [128, 64]],
    [`block_sparse_moe.experts.${expert}.w2.weight`, [64, 128]],
    [`block_sparse_moe.experts.${expert}.w3.weight`, [128, 64]],
  ]);
  const shapes = Object.fromEntries([['block_sparse_moe.gate.weight', [2, 64]], ...experts]);
  return addToLayers(base, shapes);
}

const NORMS = { 'self_attn.q_norm.weight': [64], 'self_attn.k_norm.weight': [32] };

/** The replicable architectures, with what their layers and configurations have of their own. */
const ARCHITECTURES: Readonly<Record<string, () => TinyModel>> = {
  llama: () => tinyBase(),
  mistral: () => configured(tinyBase(), { sliding_window: 4096 }),
  mixtral: () => configured(mixtral(), { num_local_experts: 2 }),
  gemma: () => tinyBase({ tied: true }),
  granite: () => configured(tinyBase(), { residual_multiplier: 0.2 }),
  olmo2: () => addToLayers(tinyBase(), { ...NORMS, 'post_feedforward_layernorm.weight': [64] }),
  phi3: () => fuseProjections(tinyBase()),
  qwen2: () =>
    configured(withBiases(tinyBase()), { use_sliding_window: false, max_window_layers: 28 }),
  qwen3: () =>
    configured(addToLayers(tinyBase(), NORMS), {
      layer_types: ['full_attention', 'full_attention'],
    }),
};

function configured(base: TinyModel, config: Readonly<Record<string, unknown>>): TinyModel {
  Object.assign(base.config, config);
  return base;
}

/** The layers in the order of `SOURCES`, as files that hold every copy. */
function replicateByHand(base: TinyModel): TinyModel {
  const layers = SOURCES.flatMap((source, copy) => {
    const stem = `model.layers.${source}.`;
    return base.tensors
      .filter(({ name }) => name.startsWith(stem))
      .map((tensor) => ({ ...tensor, name: tensor.name.replace(stem, `model.layers.${copy}.`) }));
  });
  const others = base.tensors.filter(({ name }) => !name.includes('.layers.'));
  const types = base.config['layer_types'] as string[] | undefined;
  const perLayer = types === undefined ? {} : { layer_types: SOURCES.map(() => types[0]) };
  const config = { ...base.config, num_hidden_layers: SOURCES.length, ...perLayer };
  return { ...base, config, tensors: [...others, ...layers] };
}

async function merge(base: TinyModel, adapter: TinyModel) {
  const root = await temporaryDirectory();
  const roots = { base: join(root, 'base'), a: join(root, 'a') };
  const output = join(root, 'merged');
  await writeFiles(roots.base, baseFiles(base));
  await writeFiles(roots.a, adapterFiles(adapter));
  const { plan } = await mergeDirectories({ base: roots.base, adapter: roots.a, output });
  const files = await openModelDirectory(output);
  await verifyMerge({ directory: output, files, recompute: { plan, roots } });
  const config: unknown = JSON.parse(String((await readFiles(output)).get('config.json')));
  return { config, tensors: await loadTensors(output, ['model.safetensors']) };
}

test.each(Object.entries(ARCHITECTURES))('replicated layers of %s', async (type, make) => {
  const base = configured(layered(make()), { model_type: type });
  const adapter = onReplicated(['self_attn.q_proj', 'self_attn.v_proj']);
  const found = await merge(base, adapter);
  const { layer_replication: _, ...config } = adapter.config;
  const wanted = await merge(replicateByHand(base), { ...adapter, config });
  expect(found.config).toEqual(wanted.config);
  expect([...found.tensors.keys()].sort()).toEqual([...wanted.tensors.keys()].sort());
  for (const [name, tensor] of wanted.tensors) expect(found.tensors.get(name)).toEqual(tensor);
  // Copies of one layer are told apart by what was trained on each.
  const of = (layer: number, path: string): unknown =>
    found.tensors.get(`model.layers.${layer}.${path}.weight`)?.bytes;
  const trained = type === 'phi3' ? 'self_attn.qkv_proj' : 'self_attn.q_proj';
  expect(of(0, trained)).not.toEqual(of(2, trained));
  expect(of(0, 'input_layernorm')).toEqual(of(2, 'input_layernorm'));
});
