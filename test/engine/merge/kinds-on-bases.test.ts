/**
 * Every kind of adapter on every kind of base: what comes out is what the same merge onto the
 * base's dequantised weights makes. That those are right, golden files show.
 */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { MergeOptions } from '../../../engine/plan/plan.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { kindAdapter } from '../../doubles/kind-adapter.ts';
import { mergeDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { type PackedKind, packBase } from '../../doubles/packed-base.ts';
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

/** How adapters are merged, and what makes them. */
type Merge = readonly [MergeOptions, () => readonly TinyModel[]];

type BaseKind = PackedKind | 'simulated_nf4';

const BASES: readonly BaseKind[] = ['gptq', 'awq', 'fp8', 'mxfp4', 'simulated_nf4'];
const WEIGHTS = 'model.safetensors';
const PREFIX = 'base_model.model.';
const EMBEDDING = 'model.embed_tokens';
const TARGETS = ['self_attn.q_proj', 'mlp.down_proj'] as const;

function baseOf(kind: BaseKind): TinyModel {
  const base = tinyBase();
  const random = new Random(11);
  for (const { name, shape } of base.tensors.filter((each) => /[qv]_proj\./.test(each.name))) {
    const bias = name.replace(/weight$/, 'bias');
    base.tensors.push(randomTensor(random, bias, 'BF16', [shape[0] ?? 0]));
  }
  if (kind !== 'simulated_nf4') packBase(base, random, kind);
  return base;
}

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

/** Merges onto a base, works rows of it out again, and loads what was written. */
async function merge(
  base: string,
  adapters: readonly TinyModel[],
  options: MergeOptions,
  windowBytes?: number,
): Promise<ReadonlyMap<string, LoadedTensor>> {
  const root = await temporaryDirectory();
  const ids = adapters.map((_, index) => 'abcdefgh'[index]!);
  const at = (id: string): string => join(root, id);
  for (const [index, id] of ids.entries()) await writeFiles(at(id), adapterFiles(adapters[index]!));
  const others = Object.fromEntries(ids.slice(1).map((id) => [id, at(id)]));
  const cut = windowBytes === undefined ? {} : { windowBytes };
  const output = at('merged');
  const { plan } = await mergeDirectories({
    ...{ base, adapter: at('a'), others, output, options, ...cut },
  });
  const roots = { base, ...Object.fromEntries(ids.map((id) => [id, at(id)])) };
  const files = await openModelDirectory(output);
  await verifyMerge({ directory: output, files, recompute: { plan, roots } });
  return loadTensors(output, [WEIGHTS]);
}

/** A base, and the same had it never been quantised: what a change of the norm alone leaves. */
async function writeBases(
  model: TinyModel,
  mergeOnto: MergeOptions,
): Promise<readonly [string, string]> {
  const root = await temporaryDirectory();
  const [base, dequantized, adapter] = ['base', 'dequantized', 'adapter'].map((name) =>
    join(root, name),
  ) as [string, string, string];
  await writeFiles(base, baseFiles(model));
  const norm: TinyModel = { config: {}, tensors: [], files: {}, shards: 1 };
  norm.config = { peft_type: 'LORA', r: 4, modules_to_save: ['norm'] };
  const { data, ...vector } = model.tensors.find(({ name }) => name === 'model.norm.weight')!;
  norm.tensors = [{ ...vector, name: `${PREFIX}model.norm.weight`, data }];
  await writeFiles(adapter, adapterFiles(norm));
  await mergeDirectories({ base, adapter, output: dequantized, options: mergeOnto });
  return [base, dequantized];
}

const byName = (tensors: ReadonlyMap<string, LoadedTensor>): LoadedTensor[] =>
  [...tensors.values()].sort((a, b) => (a.name < b.name ? -1 : 1));

async function expectSame(
  model: TinyModel,
  mergeOnto: MergeOptions,
  merges: Readonly<Record<string, Merge>>,
): Promise<void> {
  const [base, dequantized] = await writeBases(model, mergeOnto);
  const before = byName(await loadTensors(dequantized, [WEIGHTS]));
  for (const [name, [options, make]] of Object.entries(merges)) {
    const wanted = byName(await merge(dequantized, make(), options));
    const found = await merge(base, make(), { ...options, ...mergeOnto }, 4096);
    expect(byName(found), name).toEqual(wanted);
    expect(wanted, name).not.toEqual(before);
  }
}

test.each(BASES)('every kind of adapter, alone and combined, on %s', async (kind) => {
  const mergeOnto = kind === 'simulated_nf4' ? kind : 'dequantized';
  await expectSame(baseOf(kind), { mergeOnto }, MERGES);
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
  await expectSame(base, { mergeOnto: 'simulated_nf4' }, { all: [linear, make] });
});
