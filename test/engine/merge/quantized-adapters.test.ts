/** All that adapters have, on quantised bases: the bytes of a merge onto the dequantised weights. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { MergeOptions } from '../../../engine/plan/plan.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { dequantizeBase } from '../../doubles/dequantized-base.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { KIND_NAMES, kindAdapter } from '../../doubles/kind-adapter.ts';
import { mergeDirectories, planDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { quantizeBase } from '../../doubles/quantized-weight.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  baseFiles,
  randomTensor,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { type LoadedTensor, loadTensors } from '../../golden/golden-case.ts';

type Kind = Parameters<typeof quantizeBase>[2];

const PREFIX = 'base_model.model.';
const EMBEDDING = 'model.embed_tokens';
const HEAD = 'lm_head';
const QUERY_AND_VALUE = /(q|v)_proj\.weight$/;

/** A quantised base whose queries and values have biases, in two files. */
function quantizedBase(kind: Kind, tied = false): TinyModel {
  const base = tinyBase({ shards: 2, tied });
  const random = new Random(7);
  for (const { name, shape } of base.tensors.filter((each) => QUERY_AND_VALUE.test(each.name))) {
    const bias = name.replace(/weight$/, 'bias');
    base.tensors.push(randomTensor(random, bias, 'BF16', [shape[0] ?? 0]));
  }
  quantizeBase(base, random, kind);
  return base;
}

function add(adapter: TinyModel, name: string, ...shape: number[]): void {
  const random = new Random(adapter.tensors.length);
  adapter.tensors.push(randomTensor(random, PREFIX + name, 'F32', shape));
}

/** Adds a vector for each B, whose name has this in the place of `lora_B.weight`. */
function addVectors(adapter: TinyModel, suffix: string): void {
  for (const { name, shape } of adapter.tensors.filter((each) => /lora_B/.test(each.name))) {
    const vector = name.replace(PREFIX, '').replace('lora_B.weight', suffix);
    add(adapter, vector, shape[0] ?? 0);
  }
}

function trainEmbedding(adapter: TinyModel): void {
  add(adapter, `${EMBEDDING}.lora_embedding_A`, 4, 100);
  add(adapter, `${EMBEDDING}.lora_embedding_B`, 64, 4);
}

function trainTokens(adapter: TinyModel): void {
  adapter.config['trainable_token_indices'] = { embed_tokens: [3, 99], [HEAD]: [50] };
  add(adapter, `${EMBEDDING}.token_adapter.trainable_tokens_delta`, 2, 64);
  add(adapter, `${HEAD}.token_adapter.trainable_tokens_delta`, 1, 64);
}

const ADAPTERS: Readonly<Record<string, () => TinyModel>> = {
  'LoRA on the embedding, a saved head and trained biases': () => {
    const adapter = tinyAdapter();
    trainEmbedding(adapter);
    Object.assign(adapter.config, { bias: 'lora_only', modules_to_save: [HEAD] });
    addVectors(adapter, 'bias');
    add(adapter, `${HEAD}.weight`, 100, 64);
    return adapter;
  },
  lora_bias: () => {
    const adapter = tinyAdapter();
    adapter.config['lora_bias'] = true;
    addVectors(adapter, 'lora_B.bias');
    return adapter;
  },
  'DoRA and trained rows': () => {
    const adapter = doraAdapter({ targets: ['self_attn.q_proj', 'mlp.down_proj'], rank: 5 });
    trainTokens(adapter);
    return adapter;
  },
  ...Object.fromEntries(KIND_NAMES.map((kind) => [kind, () => kindAdapter(kind)])),
  'DoRA on the embedding, by columns': () => {
    const adapter = doraAdapter();
    trainEmbedding(adapter);
    add(adapter, `${EMBEDDING}.lora_magnitude_vector`, 64);
    return adapter;
  },
  'trained rows beside LoRA on packed weights': () => {
    const adapter = tinyAdapter({ targets: ['self_attn.k_proj', 'mlp.up_proj'] });
    trainTokens(adapter);
    return adapter;
  },
  'a packed weight that is replaced as a whole': () => {
    const adapter = tinyAdapter();
    adapter.config['modules_to_save'] = ['down_proj'];
    for (const layer of [0, 1]) add(adapter, `model.layers.${layer}.mlp.down_proj.weight`, 64, 128);
    return adapter;
  },
  'a vocabulary that grew': () => {
    const adapter = tinyAdapter();
    for (const module of [EMBEDDING, HEAD]) add(adapter, `${module}.weight`, 103, 64);
    return adapter;
  },
};

async function write(base: TinyModel, adapter: TinyModel) {
  const root = await temporaryDirectory();
  const inputs = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  await writeFiles(inputs.base, baseFiles(base));
  await writeFiles(inputs.adapter, adapterFiles(adapter));
  return { ...inputs, output: join(root, 'output') };
}

/** Merges into one file, recomputes what was merged, and loads it. */
async function mergeAndVerify(
  base: TinyModel,
  adapter: TinyModel,
  options: MergeOptions & { readonly windowBytes?: number },
): Promise<Map<string, LoadedTensor>> {
  const { windowBytes, ...others } = options;
  const directories = await write(base, adapter);
  const { plan } = await mergeDirectories({
    ...directories,
    options: { ...others, shardBytesMax: 1e9 },
    threads: 2,
    ...(windowBytes === undefined ? {} : { windowBytes }),
  });
  const files = await openModelDirectory(directories.output);
  const roots = { base: directories.base, a: directories.adapter };
  await verifyMerge({ directory: directories.output, files, recompute: { plan, roots } });
  return loadTensors(directories.output, ['model.safetensors']);
}

const byName = (tensors: ReadonlyMap<string, LoadedTensor>): LoadedTensor[] =>
  [...tensors.values()].sort((a, b) => (a.name < b.name ? -1 : 1));

describe.each(Object.entries(ADAPTERS))('%s', (_, makeAdapter) => {
  test.each<Kind>(['nf4', 'nf4-double', 'int8'])('on %s', async (kind) => {
    const base = quantizedBase(kind);
    for (const [dtype, windowBytes] of [
      ['bfloat16', 4096],
      ['float32', 4_194_304],
    ] as const) {
      const expected = await mergeAndVerify(dequantizeBase(base), makeAdapter(), { dtype });
      const options = { dtype, mergeOnto: 'dequantized', windowBytes } as const;
      const merged = await mergeAndVerify(base, makeAdapter(), options);
      expect(byName(merged)).toEqual(byName(expected));
    }
  });
});

test('LoRA on a tied embedding of a quantised base makes a head', async () => {
  const base = quantizedBase('nf4', true);
  const adapter = tinyAdapter();
  trainEmbedding(adapter);
  const merged = await mergeAndVerify(base, adapter, { mergeOnto: 'dequantized' });
  const before = base.tensors.find(({ name }) => name === `${EMBEDDING}.weight`);
  expect(merged.get(`${HEAD}.weight`)?.bytes).toEqual(before?.data);
  expect(merged.get(`${EMBEDDING}.weight`)?.bytes).not.toEqual(before?.data);
  const plan = await planDirectories(await write(base, adapter), { mergeOnto: 'dequantized' });
  expect(plan.configEdits).toEqual([
    { path: ['tie_word_embeddings'], value: false },
    { path: ['quantization_config'], value: null },
  ]);
});

test('a vocabulary that grew and a quantisation that went are both said in config.json', async () => {
  const adapter = ADAPTERS['a vocabulary that grew']!();
  const inputs = await write(quantizedBase('nf4'), adapter);
  const plan = await planDirectories(inputs, { mergeOnto: 'dequantized' });
  expect(plan.configEdits).toEqual([
    { path: ['quantization_config'], value: null },
    { path: ['vocab_size'], value: 103 },
  ]);
});

test('a lora_bias for packed layers without biases is refused', async () => {
  const base = tinyBase();
  quantizeBase(base, new Random(7));
  const inputs = await write(base, ADAPTERS['lora_bias']!());
  await expect(planDirectories(inputs, { mergeOnto: 'dequantized' })).rejects.toMatchObject({
    code: 'adapter.unbound-tensor',
    message: expect.stringMatching(/lora_bias for "model.layers.0.self_attn.q_proj"/),
  });
});

test('bias: all asks for the biases of layers, not for what lies beside packed weights', async () => {
  const adapter = ADAPTERS['LoRA on the embedding, a saved head and trained biases']!();
  adapter.config['bias'] = 'all';
  const inputs = await write(quantizedBase('nf4-double'), adapter);
  const plan = await planDirectories(inputs, { mergeOnto: 'dequantized' });
  const biases = plan.shards
    .flatMap(({ tensors }) => tensors)
    .filter(({ name }) => name.endsWith('.bias'));
  expect(biases.map(({ from }) => from.input)).toEqual(['a', 'a', 'a', 'a']);
});
