import { readAdapter } from '../adapters/adapter.ts';
import { ADAPTER_CONFIG_FILE } from '../adapters/adapter-config.ts';
import { type FourBitEvidence, findFourBitEvidence } from '../adapters/four-bit-evidence.ts';
import { scanAdapter } from '../adapters/scan-adapter.ts';
import { hasPlainModules } from '../architectures/linear-modules.ts';
import { type ModelConfig, readModelConfig } from '../architectures/model-config.ts';
import { assert } from '../errors.ts';
import type { ModelFiles } from '../model-files.ts';
import { bindQuantizedWeights } from '../quantization/bind-weights.ts';
import type { DequantizedCheckpoint } from '../quantization/bitsandbytes.ts';
import { measureNf4Distance, type Nf4Distance } from '../quantization/nf4-distance.ts';
import { findLinearWeights, simulateNf4 } from '../quantization/simulate-nf4.ts';
import { type Checkpoint, readCheckpoint } from '../safetensors/checkpoint.ts';
import { INDEX_FILE } from '../safetensors/weight-index.ts';
import { checkTokenizer } from './check-tokenizer.ts';
import { chooseWeights, type OpenedAdapter } from './combine-adapters.ts';
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
 * @param adapters in the order in which they are added; several need `options.combination`
 * @throws WeldlineError `checkpoint.*`, `safetensors.*`, `adapter.*`
 */
export async function planMerge(
  base: MergeInput,
  adapters: readonly AdapterInput[],
  options: MergeOptions,
): Promise<Plan> {
  const preview = await previewMerge(base.files, adapters, options);
  return completePlan(preview, { base, ...byId(adapters, (adapter) => adapter) });
}

/**
 * Everything about a merge that can be known, and can fail, cheaply: headers, configurations,
 * binding, and the values of the adapters. Reads no weight of the base, and of a quantised one the few
 * bytes beside each weight that say how.
 *
 * @throws WeldlineError `checkpoint.*`, `safetensors.*`, `adapter.*`
 */
export async function previewMerge(
  base: ModelFiles,
  adapters: readonly Pick<AdapterInput, 'id' | 'files'>[],
  options: MergeOptions,
): Promise<PlanPreview> {
  // An id given twice would name two adapters in all that follows.
  chooseWeights(
    adapters.map(({ id }) => id),
    options.combination,
  );
  // The adapters first: they are small, and their mistakes are the common ones.
  const opened: OpenedAdapter[] = [];
  let evidence: FourBitEvidence | undefined;
  for (const { id, files } of adapters) {
    const adapter = await readAdapter(id, files);
    opened.push({ adapter, files: sizesOf(files, adapterPaths(files, adapter.weightsFile)) });
    evidence ??= await findFourBitEvidence(adapter, files);
  }
  const config = await readModelConfig(base);
  const stored = await readCheckpoint(base);
  const bound = await bindQuantizedWeights(base, stored, config);
  const isSimulated = options.mergeOnto === 'simulated_nf4';
  const { checkpoint, quantized } = isSimulated ? simulateNf4(base.name, bound, config) : bound;
  const files = sizesOf(base, basePaths(base, stored));
  const preview = previewPlan({
    base: { checkpoint, quantized, config, files },
    evidence,
    adapters: opened,
    options,
  });
  const nf4Distance = await distanceOf(base, bound, config, options);
  const scanned: string[] = [];
  for (const [index, { adapter }] of opened.entries()) {
    const source = await adapters[index]!.files.open(adapter.weightsFile);
    try {
      scanned.push(...(await scanAdapter(adapter, source)));
    } finally {
      await source.close();
    }
  }
  const tokenizer = await checkTokenizer(preview, {
    base,
    ...byId(adapters, (adapter) => adapter.files),
  });
  return {
    ...preview,
    warnings: [...preview.warnings, ...scanned, ...tokenizer],
    ...(nf4Distance && { nf4Distance }),
  };
}

/** Of a 16-bit base of which it was said what is merged onto: how much the choice matters. */
async function distanceOf(
  files: ModelFiles,
  bound: DequantizedCheckpoint,
  config: ModelConfig,
  { mergeOnto }: MergeOptions,
): Promise<Nf4Distance | undefined> {
  const isChoice = mergeOnto !== undefined && bound.quantized.size === 0;
  if (!isChoice || !hasPlainModules(config.modelType)) return undefined;
  return measureNf4Distance(files, findLinearWeights(bound.checkpoint, config));
}

function byId<Item extends { readonly id: string }, Value>(
  items: readonly Item[],
  value: (item: Item) => Value,
): Record<string, Value> {
  return Object.fromEntries(items.map((item) => [item.id, value(item)]));
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

function adapterPaths(files: ModelFiles, weightsFile: string): string[] {
  const config = files.sizes.has(ADAPTER_CONFIG_FILE) ? [ADAPTER_CONFIG_FILE] : [];
  return [...config, weightsFile, ...[...files.sizes.keys()].filter(isSideFile)];
}

function sizesOf({ sizes }: ModelFiles, paths: readonly string[]): UnreadFile[] {
  return [...new Set(paths)].sort().map((path) => ({ path, size: sizes.get(path) ?? 0 }));
}
