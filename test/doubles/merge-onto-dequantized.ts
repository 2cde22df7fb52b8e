/** The same merge onto a quantised base and onto what the base dequantises to. */
import { hash } from 'node:crypto';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { MergeOptions } from '../../engine/plan/plan.ts';
import { verifyMerge } from '../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { type LoadedTensor, loadTensors } from '../golden/golden-case.ts';
import { mergeDirectories, writeFiles } from './merge-directories.ts';
import { temporaryDirectory } from './temporary-directory.ts';
import { adapterFiles, baseFiles, type TinyModel } from './tiny-model.ts';

/** How adapters are merged, and what makes them. */
export type Merge = readonly [MergeOptions, () => readonly TinyModel[]];

const WEIGHTS = 'model.safetensors';

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
  norm.tensors = [{ ...vector, name: 'base_model.model.model.norm.weight', data }];
  await writeFiles(adapter, adapterFiles(norm));
  await mergeDirectories({ base, adapter, output: dequantized, options: mergeOnto });
  return [base, dequantized];
}

/** Tensors in the order of names, with digests for bytes: to compare arrays takes long. */
const byName = (tensors: ReadonlyMap<string, LoadedTensor>): object[] =>
  [...tensors.values()]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ bytes, ...tensor }) => ({ ...tensor, bytes: hash('sha256', bytes) }));

/**
 * Merges onto both, verifies both, and compares every byte of every tensor.
 *
 * @param model has a `model.norm.weight`
 */
export async function expectSameOntoDequantized(
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
