import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { MergeOptions } from '../../engine/plan/plan.ts';
import { verifyMerge } from '../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { type Directories, mergeDirectories, writeFiles } from './merge-directories.ts';
import { temporaryDirectory } from './temporary-directory.ts';
import { adapterFiles, baseFiles, type TinyModel } from './tiny-model.ts';

/** Writes a base and adapters with the ids "a", "b" and so on. */
export async function writeModels(
  base: TinyModel,
  adapters: readonly TinyModel[],
): Promise<Directories> {
  const root = await temporaryDirectory();
  await writeFiles(join(root, 'base'), baseFiles(base));
  const others: Record<string, string> = {};
  for (const [index, adapter] of adapters.entries()) {
    const id = String.fromCharCode(97 + index);
    const directory = join(root, id);
    await writeFiles(directory, adapterFiles(adapter));
    if (index > 0) others[id] = directory;
  }
  return { base: join(root, 'base'), adapter: join(root, 'a'), others };
}

export interface Manner {
  readonly threads?: number;
  readonly windowBytes?: number;
}

/** Merges, has the result verified against the inputs, and returns the bytes of the weights. */
export async function mergedWeights(
  inputs: Directories,
  options: MergeOptions,
  manner: Manner = {},
): Promise<Buffer> {
  const output = join(await temporaryDirectory(), 'merged');
  const { plan } = await mergeDirectories({ ...inputs, output, options, ...manner });
  const files = await openModelDirectory(output);
  const roots = { base: inputs.base, a: inputs.adapter, ...inputs.others };
  await verifyMerge({ directory: output, files, recompute: { plan, roots } });
  return readFile(join(output, 'model.safetensors'));
}
