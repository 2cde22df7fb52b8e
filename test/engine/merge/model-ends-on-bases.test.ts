/**
 * Embeddings, heads, biases, vocabularies and the settings of LoRA on every kind of base, as in
 * kinds-on-bases.test.ts: the bytes of the same merge onto the dequantised weights.
 */
import { test } from 'vitest';
import { expectSameOntoDequantized, type Merge } from '../../doubles/merge-onto-dequantized.ts';
import { BASES, mergeOntoOf, quantized, withBiases } from '../../doubles/quantized-bases.ts';
import { Random } from '../../doubles/random.ts';
import { randomTensor, type TinyModel, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';

const PREFIX = 'base_model.model.';
const EMBEDDING = 'model.embed_tokens';
const HEAD = 'lm_head';

function add(adapter: TinyModel, name: string, ...shape: number[]): void {
  const random = new Random(adapter.tensors.length);
  adapter.tensors.push(randomTensor(random, PREFIX + name, 'F32', shape));
}

function target(adapter: TinyModel, ...modules: string[]): void {
  adapter.config['target_modules'] = [
    ...(adapter.config['target_modules'] as string[]),
    ...modules,
  ];
}

function trainEmbedding(adapter: TinyModel): TinyModel {
  target(adapter, 'embed_tokens');
  add(adapter, `${EMBEDDING}.lora_embedding_A`, 4, 100);
  add(adapter, `${EMBEDDING}.lora_embedding_B`, 64, 4);
  return adapter;
}

function trainHead(adapter: TinyModel): TinyModel {
  target(adapter, HEAD);
  add(adapter, `${HEAD}.lora_A.weight`, 4, 64);
  add(adapter, `${HEAD}.lora_B.weight`, 100, 4);
  return adapter;
}

/** Biases of queries and values, which `withBiases` gives to a base. */
function trainBiases(adapter: TinyModel, bias: 'all' | 'lora_only'): TinyModel {
  adapter.config['bias'] = bias;
  for (const layer of [0, 1]) {
    add(adapter, `model.layers.${layer}.self_attn.q_proj.bias`, 64);
    add(adapter, `model.layers.${layer}.self_attn.v_proj.bias`, 32);
  }
  return adapter;
}

/** Saved tables of so many rows, where the base has 100. */
function withVocabulary(rows: number, adapter: TinyModel): TinyModel {
  for (const module of [EMBEDDING, HEAD]) add(adapter, `${module}.weight`, rows, 64);
  return adapter;
}

/** Every layer is a Linear, so the flag is wrong, as PEFT would find; those of `mlp` have rank 6. */
function patterns(): TinyModel {
  const adapter = tinyAdapter();
  const down = tinyAdapter({ targets: ['mlp.down_proj'], rank: 6, seed: 5 });
  adapter.tensors.push(...down.tensors);
  target(adapter, 'down_proj');
  Object.assign(adapter.config, {
    ...{ use_rslora: true, fan_in_fan_out: true },
    ...{ rank_pattern: { down_proj: 6 }, alpha_pattern: { 'layers.1.self_attn.q_proj': 3 } },
  });
  return adapter;
}

function oftEmbedding(): TinyModel {
  const config = {
    ...{ peft_type: 'OFT', target_modules: ['embed_tokens'], peft_version: '0.21.2' },
    ...{ oft_block_size: 8, r: 0, use_cayley_neumann: true },
  };
  const adapter: TinyModel = { config, tensors: [], files: {}, shards: 1 };
  add(adapter, `${EMBEDDING}.oft_embedding_R.weight`, 8, 28);
  return adapter;
}

const UNTIED: Readonly<Record<string, Merge>> = {
  'rank-stabilised, patterns, fan_in_fan_out, bias: lora_only, LoRA on both ends': [
    {},
    () => [trainBiases(trainHead(trainEmbedding(patterns())), 'lora_only')],
  ],
  'bias: all and a vocabulary that grew': [
    {},
    () => [withVocabulary(103, trainBiases(tinyAdapter(), 'all'))],
  ],
  'a vocabulary that shrank': [{}, () => [withVocabulary(97, tinyAdapter())]],
  'OFT on an embedding': [{}, () => [oftEmbedding()]],
};

const TIED: Readonly<Record<string, Merge>> = {
  'LoRA on the embedding': [{}, () => [trainEmbedding(tinyAdapter())]],
  'LoRA on the head': [{}, () => [trainHead(tinyAdapter())]],
};

test.each(BASES)('both ends of a model, biases and the settings of LoRA on %s', async (kind) => {
  const base = quantized(kind, withBiases(tinyBase()));
  await expectSameOntoDequantized(base, mergeOntoOf(kind), UNTIED);
});

test.each(BASES)('both ends of a tied model on %s', async (kind) => {
  const base = quantized(kind, tinyBase({ tied: true }));
  await expectSameOntoDequantized(base, mergeOntoOf(kind), TIED);
});
