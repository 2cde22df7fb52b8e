import { ADAPTER_WEIGHTS_FILE, type Adapter, readAdapter } from '../adapters/adapter.ts';
import { scanAdapter } from '../adapters/scan-adapter.ts';
import { type ModelConfig, readModelConfig } from '../architectures/model-config.ts';
import type { ModelFiles } from '../model-files.ts';
import { type Checkpoint, readCheckpoint } from '../safetensors/checkpoint.ts';
import { INDEX_FILE } from '../safetensors/weight-index.ts';
import { buildPlan } from './build-plan.ts';
import type { InputFile, MergeOptions, Plan } from './plan.ts';
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
 * Reads headers and configurations, scans the adapter's values, takes the digests of all files that
 * count, and plans.
 *
 * @throws WeldlineError `checkpoint.*`, `safetensors.*`, `adapter.*`
 */
export async function planMerge(
  base: MergeInput,
  adapter: AdapterInput,
  options: MergeOptions,
): Promise<Plan> {
  const { checkpoint, config, opened, scanned } = await checkMerge(base.files, adapter, options);
  const baseFiles = await digestFiles(base, basePaths(base.files, checkpoint));
  const adapterFiles = await digestFiles(adapter, adapterPaths(adapter.files));
  const plan = buildPlan({
    base: { checkpoint, config, files: baseFiles },
    adapter: { adapter: opened, files: adapterFiles },
    options,
  });
  return { ...plan, warnings: [...plan.warnings, ...scanned] };
}

interface CheckedMerge {
  readonly checkpoint: Checkpoint;
  readonly config: ModelConfig;
  readonly opened: Adapter;
  /** The plan as far as headers tell: complete but for the digests of files. */
  readonly plan: Plan;
  /** Warnings about the adapter's values. */
  readonly scanned: readonly string[];
  readonly warnings: readonly string[];
}

/**
 * Everything about a merge that can fail cheaply: headers, configurations, binding, and the
 * adapter's values. Reads no weight of the base.
 */
export async function checkMerge(
  base: ModelFiles,
  adapter: { readonly id: string; readonly files: ModelFiles },
  options: MergeOptions,
): Promise<CheckedMerge> {
  // The adapter first: it is small, and its mistakes are the common ones.
  const opened = await readAdapter(adapter.id, adapter.files);
  const config = await readModelConfig(base);
  const checkpoint = await readCheckpoint(base);
  const plan = buildPlan({
    base: { checkpoint, config, files: [] },
    adapter: { adapter: opened, files: [] },
    options,
  });
  const source = await adapter.files.open(ADAPTER_WEIGHTS_FILE);
  try {
    const scanned = await scanAdapter(opened, source);
    const warnings = [...plan.warnings, ...scanned];
    return { checkpoint, config, opened, plan, scanned, warnings };
  } finally {
    await source.close();
  }
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

async function digestFiles(input: MergeInput, paths: readonly string[]): Promise<InputFile[]> {
  const files: InputFile[] = [];
  for (const path of [...new Set(paths)].sort()) {
    const size = input.files.sizes.get(path) ?? 0;
    files.push({ path, size, sha256: await input.digest(path) });
  }
  return files;
}
