/**
 * Every kind of adapter on every kind of base: what comes out is what the same merge onto the
 * base's dequantised weights makes. That those are right, golden files show.
 */
import { test } from 'vitest';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { kindAdapter } from '../../doubles/kind-adapter.ts';
import { expectSameOntoDequantized, type Merge } from '../../doubles/merge-onto-dequantized.ts';
import { BASES, mergeOntoOf, quantized, withBiases } from '../../doubles/quantized-bases.ts';
import { Random } from '../../doubles/random.ts';
import { randomTensor, type TinyModel, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';

const PREFIX = 'base_model.model.';
const EMBEDDING = 'model.embed_tokens';
const TARGETS = ['self_attn.q_proj', 'mlp.down_proj'] as const;

function add(adapter: TinyModel, name: string, ...shape: number[]): void {
  const random = new Random(adapter.tensors.length);
  adapter.tensors.push(randomTensor(random, PREFIX + name, 'F32', shape));
}

function embeddingAdapter(): TinyModel {
  const adapter = tinyAdapter();
  add(adapter, `${EMBEDDING}.lora_embedding_A`, 4, 100);
  add(adapter, `${EMBEDDING}.lora_embedding_B`, 64, 4);
  return adapter;
}

/** An adapter on one module, moved to another module of the same shape, so that others fit beside. */
function at(place: string, adapter: TinyModel, from = 'layers.0.self_attn.q_proj'): TinyModel {
  const isShared = (name: string): boolean => !name.includes('.layers.');
  const tensors = adapter.tensors
    .filter(({ name }) => isShared(name) || name.includes(`${from}.`))
    .map((tensor) => ({ ...tensor, name: tensor.name.replace(from, place) }));
  const config = { ...adapter.config, target_modules: `model.${place}` };
  return { ...adapter, config, tensors };
}

/** The kinds beside each other, each on a module of its own. */
function allKinds(): readonly TinyModel[] {
  const down = 'layers.0.mlp.down_proj';
  const bias = tinyAdapter();
  bias.config['lora_bias'] = true;
  add(bias, 'model.layers.0.self_attn.q_proj.lora_B.bias', 64);
  const embedding = embeddingAdapter();
  embedding.config['use_dora'] = true;
  embedding.config['target_modules'] = ['embed_tokens'];
  embedding.tensors = embedding.tensors.filter(({ name }) => name.includes('embed'));
  add(embedding, `${EMBEDDING}.lora_magnitude_vector`, 64);
  return [
    at('layers.0.self_attn.q_proj', bias),
    at('layers.1.self_attn.q_proj', doraAdapter()),
    at('layers.0.self_attn.o_proj', kindAdapter('LOHA')),
    at('layers.1.self_attn.o_proj', kindAdapter('LOKR')),
    at(down, kindAdapter('IA3'), down),
    at('layers.1.mlp.down_proj', kindAdapter('OFT'), down),
    embedding,
  ];
}

function otherKinds(): readonly TinyModel[] {
  const down = 'layers.0.mlp.down_proj';
  const tokens = tinyAdapter({ targets: ['self_attn.k_proj'] });
  tokens.config['trainable_token_indices'] = { embed_tokens: [3, 99] };
  add(tokens, `${EMBEDDING}.token_adapter.trainable_tokens_delta`, 2, 64);
  const saved: TinyModel = tinyAdapter({ targets: ['mlp.up_proj'] });
  saved.config['modules_to_save'] = ['gate_proj', 'lm_head'];
  for (const layer of [0, 1]) add(saved, `model.layers.${layer}.mlp.gate_proj.weight`, 128, 64);
  add(saved, 'lm_head.weight', 100, 64);
  return [
    at('layers.0.self_attn.q_proj', kindAdapter('ADALORA')),
    at('layers.1.self_attn.q_proj', kindAdapter('VERA')),
    at('layers.0.self_attn.o_proj', kindAdapter('IA3')),
    at('layers.1.self_attn.o_proj', kindAdapter('OFT')),
    at(down, kindAdapter('LOHA'), down),
    tokens,
    saved,
  ];
}

const MERGES: Readonly<Record<string, Merge>> = {
  'lora_bias, DoRA on a layer and on the embedding, LoHa, LoKr, (IA)³ by inputs, OFT': [
    { combination: { method: 'linear' } },
    allKinds,
  ],
  'AdaLoRA, VeRA, (IA)³ by outputs, OFT, LoHa, trained rows, LoRA, a saved head and layers': [
    { combination: { method: 'linear' } },
    otherKinds,
  ],
  svd: [{ combination: { method: 'svd', parameters: { rank: 3 } } }, twoAdapters],
  dare_ties: [{ combination: { method: 'dare_ties', parameters: { density: 0.4 } } }, twoAdapters],
  'DoRA twice, in turn': [
    { combination: { method: 'sequential' } },
    () => [doraAdapter({ targets: TARGETS }), doraAdapter({ targets: TARGETS, seed: 7 })],
  ],
};

function twoAdapters(): readonly TinyModel[] {
  return [tinyAdapter({ targets: TARGETS }), tinyAdapter({ targets: TARGETS, rank: 6, seed: 3 })];
}

/** One layer and equal ranks, as `peft_linear` wants them. */
function twoOnOneLayer(): readonly TinyModel[] {
  return [2, 3].map((seed) => at('layers.0.self_attn.q_proj', tinyAdapter({ seed })));
}

test.each(BASES)('every kind of adapter, alone and combined, on %s', async (kind) => {
  const base = quantized(kind, withBiases(tinyBase()));
  await expectSameOntoDequantized(base, mergeOntoOf(kind), MERGES);
});

const OTHER_METHODS: Readonly<Record<string, Merge>> = {
  ...Object.fromEntries(
    (['ties', 'magnitude_prune', 'dare_linear'] as const).map((method) => [
      method,
      [{ combination: { method, parameters: { density: 0.4 } } }, twoOnOneLayer],
    ]),
  ),
  cat: [{ combination: { method: 'cat', weights: [0.5, 2] } }, twoOnOneLayer],
  peft_linear: [{ combination: { method: 'peft_linear', weights: [0.5, 2] } }, twoOnOneLayer],
};

test.each(['int8', 'gptq'] as const)('the other methods on %s', async (kind) => {
  await expectSameOntoDequantized(quantized(kind, tinyBase()), mergeOntoOf(kind), OTHER_METHODS);
});

/** The squares of a tiny model are GPT-2's, which are stored [in, out]. */
test('every kind of adapter that Conv1D takes, on simulated_nf4', async () => {
  const places = ['0.attn.c_attn', '1.attn.c_attn', '0.attn.c_proj', '1.attn.c_proj'];
  const base = tinyBase();
  base.config['model_type'] = 'gpt2';
  const c = (name: string): string =>
    name.replace('self_attn.q_proj', 'attn.c_attn').replace('self_attn.o_proj', 'attn.c_proj');
  base.tensors = base.tensors.map((tensor) => ({ ...tensor, name: c(tensor.name) }));
  const kinds = [kindAdapter('ADALORA'), kindAdapter('VERA'), kindAdapter('IA3'), doraAdapter()];
  const make = () =>
    kinds.map((adapter, index) => {
      const moved = at(`layers.${places[index]}`, adapter);
      return { ...moved, config: { ...moved.config, fan_in_fan_out: true } };
    });
  const linear = { combination: { method: 'linear' } } as const;
  await expectSameOntoDequantized(base, { mergeOnto: 'simulated_nf4' }, { all: [linear, make] });
});
