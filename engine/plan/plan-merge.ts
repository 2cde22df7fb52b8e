import { ADAPTER_WEIGHTS_FILE, readAdapter } from '../adapters/adapter.ts';
import { scanAdapter } from '../adapters/scan-adapter.ts';
import { readModelConfig } from '../architectures/model-config.ts';
import { assert } from '../errors.ts';
import type { ModelFiles } from '../model-files.ts';
import { bindQuantizedWeights } from '../quantization/bitsandbytes.ts';
import { type Checkpoint, readCheckpoint } from '../safetensors/checkpoint.ts';
import { INDEX_FILE } from '../safetensors/weight-index.ts';
import { checkTokenizer } from './check-tokenizer.ts';
import type { InputFile, MergeOptions, Plan, PlanPreview, UnreadFile } from './plan.ts';
import { previewPlan } from './preview-plan.ts';
import { isSideFile } from './side-files.ts';

/** An input of a merge. */
export interface MergeInput {
  readonly files: ModelFiles;
  /**
   * SHA-256 of one of its files, by path. Called for the files that the plan covers, once each.
   */
  digest(path: string): Promise<string>;
}

export interface AdapterInput extends MergeInput {
  readonly id: string;
}

/**
 * Plans a merge: all that `previewMerge` does, then the digests of all files that count.
 *
 * @throws WeldlineError `checkpoint.*`, `safetensors.*`, `adapter.*`
 */
export async function planMerge(
  base: MergeInput,
  adapter: AdapterInput,
  options: MergeOptions,
): Promise<Plan> {
  const preview = await previewMerge(base.files, adapter, options);
  return completePlan(preview, { base, [adapter.id]: adapter });
}

/**
 * Everything about a merge that can be known, and can fail, cheaply: headers, configurations,
 * binding, and the adapter's values. Reads no weight of the base, and of a quantised one the few
 * bytes beside each weight that say how.
 *
 * @throws WeldlineError `checkpoint.*`, `safetensors.*`, `adapter.*`
 */
export async function previewMerge(
  base: ModelFiles,
  adapter: { readonly id: string; readonly files: ModelFiles },
  options: MergeOptions,
): Promise<PlanPreview> {
  // The adapter first: it is small, and its mistakes are the common ones.
  const opened = await readAdapter(adapter.id, adapter.files);
  const config = await readModelConfig(base);
  const stored = await readCheckpoint(base);
  const { checkpoint, quantized } = await bindQuantizedWeights(base, stored, config);
  const files = sizesOf(base, basePaths(base, stored));
  const preview = previewPlan({
    base: { checkpoint, quantized, config, files },
    adapter: { adapter: opened, files: sizesOf(adapter.files, adapterPaths(adapter.files)) },
    options,
  });
  const source = await adapter.files.open(ADAPTER_WEIGHTS_FILE);
  try {
    const scanned = await scanAdapter(opened, source);
    const tokenizer = await checkTokenizer(preview, { base, [adapter.id]: adapter.files });
    return { ...preview, warnings: [...preview.warnings, ...scanned, ...tokenizer] };
  } finally {
    await source.close();
  }
}

/**
 * Takes the digests that a preview lacks.
 * @param inputs by id
 */
export async function completePlan(
  preview: PlanPreview,
  inputs: Readonly<Record<string, Pick<MergeInput, 'digest'>>>,
): Promise<Plan> {
  const read: Plan['inputs'] = [];
  for (const { id, files } of preview.inputs) {
    const digested: InputFile[] = [];
    for (const file of files) {
      const sha256 = await inputs[id]?.digest(file.path);
      assert(sha256 !== undefined, `a plan is completed without its input "${id}"`);
      digested.push({ ...file, sha256 });
    }
    read.push({ id, files: digested });
  }
  const sideFiles = preview.sideFiles.map((file) => {
    const files = read.find(({ id }) => id === file.input)?.files;
    const sha256 = files?.find(({ path }) => path === file.path)?.sha256;
    assert(sha256 !== undefined, `${file.path} goes beside the weights and is in no input`);
    return { ...file, sha256 };
  });
  return { ...preview, inputs: read, sideFiles };
}

/** The files of a base that a plan covers: its weights, their index, and what goes beside them. */
function basePaths(files: ModelFiles, checkpoint: Checkpoint): string[] {
  const index = files.sizes.has(INDEX_FILE) ? [INDEX_FILE] : [];
  const side = [...files.sizes.keys()].filter(isSideFile);
  return [...checkpoint.files.map((file) => file.path), ...index, ...side];
}

function adapterPaths(files: ModelFiles): string[] {
  const own = ['adapter_config.json', ADAPTER_WEIGHTS_FILE];
  return [...own, ...[...files.sizes.keys()].filter(isSideFile)];
}

function sizesOf({ sizes }: ModelFiles, paths: readonly string[]): UnreadFile[] {
  return [...new Set(paths)].sort().map((path) => ({ path, size: sizes.get(path) ?? 0 }));
}
