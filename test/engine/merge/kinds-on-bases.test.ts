/**
 * Every kind of adapter on every kind of base: what comes out is what the same merge onto the
 * base's dequantised weights makes. That those are right, golden files show.
 */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { MergeOptions } from '../../../engine/plan/plan.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { KIND_NAMES, kindAdapter } from '../../doubles/kind-adapter.ts';
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
import { verifyAllRows } from '../../doubles/verify-all-rows.ts';
import { type LoadedTensor, loadTensors } from '../../golden/golden-case.ts';

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

const ADAPTERS: Readonly<Record<string, () => TinyModel>> = {
  LORA: () => tinyAdapter({ targets: TARGETS, rank: 5 }),
  'LORA with lora_bias': () => {
    const adapter = tinyAdapter();
    adapter.config['lora_bias'] = true;
    for (const { name, shape } of adapter.tensors.filter((each) => /lora_B/.test(each.name))) {
      add(adapter, name.replace(PREFIX, '').replace(/weight$/, 'bias'), shape[0] ?? 0);
    }
    return adapter;
  },
  'LORA on the embedding, a saved head and a saved layer': () => {
    const adapter = embeddingAdapter();
    adapter.config['modules_to_save'] = ['lm_head', 'down_proj'];
    add(adapter, 'lm_head.weight', 100, 64);
    for (const layer of [0, 1]) add(adapter, `model.layers.${layer}.mlp.down_proj.weight`, 64, 128);
    return adapter;
  },
  'LORA and trained rows': () => {
    const adapter = tinyAdapter();
    adapter.config['trainable_token_indices'] = { embed_tokens: [3, 99] };
    add(adapter, `${EMBEDDING}.token_adapter.trainable_tokens_delta`, 2, 64);
    return adapter;
  },
  DORA: () => doraAdapter({ targets: TARGETS }),
  'DORA on the embedding': () => {
    const adapter = embeddingAdapter();
    adapter.config['use_dora'] = true;
    for (const { name, shape } of adapter.tensors.filter((each) => /lora_B/.test(each.name))) {
      const vector = name.replace(PREFIX, '').replace('lora_B.weight', 'lora_magnitude_vector');
      add(adapter, vector, shape[0] ?? 0);
    }
    add(adapter, `${EMBEDDING}.lora_magnitude_vector`, 64);
    return adapter;
  },
  ...Object.fromEntries(KIND_NAMES.map((kind) => [kind, () => kindAdapter(kind)])),
};

const COMBINED: Readonly<Record<string, readonly [MergeOptions, () => readonly TinyModel[]]>> = {
  linear: [{ combination: { method: 'linear', weights: [0.5, -2] } }, twoAdapters],
  svd: [{ combination: { method: 'svd', parameters: { rank: 3 } } }, twoAdapters],
  peft_linear: [
    { combination: { method: 'peft_linear' } },
    () => [tinyAdapter(), tinyAdapter({ seed: 3 })],
  ],
  ...Object.fromEntries(
    (['ties', 'dare_linear', 'dare_ties', 'magnitude_prune'] as const).map((method) => [
      method,
      [{ combination: { method, parameters: { density: 0.4 } } }, twoAdapters] as const,
    ]),
  ),
  'DORA after LORA': [
    { combination: { method: 'sequential' } },
    () => [tinyAdapter({ targets: TARGETS }), doraAdapter({ targets: TARGETS })],
  ],
  'DORA twice': [
    { combination: { method: 'sequential' } },
    () => [doraAdapter({ targets: TARGETS }), doraAdapter({ targets: TARGETS, seed: 7 })],
  ],
  'OFT after IA3': [
    { combination: { method: 'sequential' } },
    () => [kindAdapter('IA3'), kindAdapter('OFT')],
  ],
};

function twoAdapters(): readonly TinyModel[] {
  return [tinyAdapter({ targets: TARGETS }), tinyAdapter({ targets: TARGETS, rank: 6, seed: 3 })];
}

/** Merges onto a base, works every merged row out again, and loads what was written. */
async function merge(
  base: string,
  adapters: readonly TinyModel[],
  options: MergeOptions,
  windowBytes?: number,
): Promise<ReadonlyMap<string, LoadedTensor>> {
  const root = await temporaryDirectory();
  const ids = adapters.map((_, index) => 'ab'[index]!);
  const at = (id: string): string => join(root, id);
  for (const [index, id] of ids.entries()) await writeFiles(at(id), adapterFiles(adapters[index]!));
  const others = Object.fromEntries(ids.slice(1).map((id) => [id, at(id)]));
  const cut = windowBytes === undefined ? {} : { windowBytes, threads: 2 };
  const output = at('merged');
  const { plan } = await mergeDirectories({
    ...{ base, adapter: at('a'), others, output, options, ...cut },
  });
  await verifyAllRows(plan, { base, ...Object.fromEntries(ids.map((id) => [id, at(id)])) }, output);
  return loadTensors(output, [WEIGHTS]);
}

/** A base, and the same had it never been quantised: what a change of the norm alone leaves. */
async function writeBases(kind: BaseKind, mergeOnto: MergeOptions): Promise<readonly string[]> {
  const root = await temporaryDirectory();
  const [base, dequantized, adapter] = ['base', 'dequantized', 'adapter'].map((name) =>
    join(root, name),
  ) as [string, string, string];
  await writeFiles(base, baseFiles(baseOf(kind)));
  const norm: TinyModel = { config: {}, tensors: [], files: {}, shards: 1 };
  norm.config = { peft_type: 'LORA', r: 4, modules_to_save: ['norm'] };
  const { data, ...vector } = baseOf(kind).tensors.find(
    ({ name }) => name === 'model.norm.weight',
  )!;
  norm.tensors = [{ ...vector, name: `${PREFIX}model.norm.weight`, data }];
  await writeFiles(adapter, adapterFiles(norm));
  await mergeDirectories({ base, adapter, output: dequantized, options: mergeOnto });
  return [base, dequantized];
}

const byName = (tensors: ReadonlyMap<string, LoadedTensor>): LoadedTensor[] =>
  [...tensors.values()].sort((a, b) => (a.name < b.name ? -1 : 1));

describe.each(BASES)('on %s', (kind) => {
  const onto: MergeOptions = {
    mergeOnto: kind === 'simulated_nf4' ? 'simulated_nf4' : 'dequantized',
  };
  async function expectSame(adapters: readonly TinyModel[], options: MergeOptions = {}) {
    const [base, dequantized] = await writeBases(kind, onto);
    const wanted = byName(await merge(dequantized!, adapters, options));
    const found = await merge(base!, adapters, { ...options, ...onto }, 4096);
    expect(byName(found)).toEqual(wanted);
    expect(wanted).not.toEqual(byName(await loadTensors(dequantized!, [WEIGHTS])));
  }

  test.each(Object.entries(ADAPTERS))('%s', (_, make) => expectSame([make()]));

  test.each(Object.entries(COMBINED))('combined: %s', (_, [options, make]) =>
    expectSame(make(), options),
  );
});
