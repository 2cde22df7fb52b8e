import { ADAPTER_WEIGHTS_FILE } from '../adapters/adapter.ts';
import type { BoundDelta } from '../adapters/bind-adapter.ts';
import type { ModelConfig } from '../architectures/model-config.ts';
import { WeldlineError } from '../errors.ts';
import type { Checkpoint } from '../safetensors/checkpoint.ts';
import { DTYPE_BY_TORCH_NAME, type Dtype, isMergeDtype } from '../safetensors/dtype.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import { bindAdapters, chooseWeights, type OpenedAdapter, type Part } from './combine-adapters.ts';
import { planConfigEdits } from './config-edits.ts';
import { groupByFile, planShards, type TensorGroup, type UnplacedTensor } from './output-shards.ts';
import {
  ENGINE_FORMAT,
  type MergeOnto,
  type MergeOptions,
  type PlannedChange,
  type PlannedDelta,
  type PlanPreview,
  type TensorReference,
  type TensorSource,
  type UnreadFile,
} from './plan.ts';
import { planChange } from './plan-change.ts';
import { chooseSideFiles } from './side-files.ts';

/** What a plan is made of: what headers and configurations say, and which files count. */
export interface PlanInputs {
  readonly base: {
    readonly checkpoint: Checkpoint;
    /** Where the weights come from that the checkpoint holds quantised, by name. */
    readonly quantized: ReadonlyMap<string, TensorSource>;
    readonly config: ModelConfig;
    readonly files: readonly UnreadFile[];
  };
  /** In the order in which they are added. */
  readonly adapters: readonly OpenedAdapter[];
  readonly options: MergeOptions;
}

/**
 * Plans a merge but for the digests of its files: binds every adapter tensor, then fixes every
 * output byte range. Pure; reads nothing.
 *
 * @throws WeldlineError `adapter.*` and `checkpoint.*` codes of binding, `plan.option-invalid`,
 *   `checkpoint.quantized-base` without a choice of what is merged onto, `side-file.unsafe`
 */
export function previewPlan({ base, adapters, options }: PlanInputs): PlanPreview {
  const { config } = base;
  checkShardSize(options);
  const ids = adapters.map(({ adapter }) => adapter.id);
  const weights = chooseWeights(ids, options.combination);
  checkMergeOnto(base, options.mergeOnto);
  const { method } = options.combination ?? {};
  const parts = bindAdapters(adapters, weights, base.checkpoint, config, method);
  const groups = groupByFile(base.checkpoint.files, (name) =>
    planTensor(name, name, base, parts, options),
  );
  const withHead = addUntiedHead(groups, base, parts, options);
  const { dtype, shardBytesMax, mergeOnto } = options;
  const side = chooseSideFiles(base.files, tokenizerOf(parts));
  const isPlain = parts.length === 1 && parts[0]?.weight === 1;
  return {
    format: 'weldline.plan',
    engineFormat: ENGINE_FORMAT,
    options: {
      ...(dtype === undefined ? {} : { dtype }),
      ...(shardBytesMax === undefined ? {} : { shardBytesMax }),
      ...(mergeOnto === undefined ? {} : { mergeOnto }),
      ...(isPlain ? {} : { combination: { method: 'linear', weights: [...weights] } }),
    },
    inputs: [
      { id: 'base', files: [...base.files] },
      ...parts.map(({ adapter, files }) => ({ id: adapter.id, files: [...files] })),
    ],
    rules: parts.map(({ adapter, binding }) => ({ adapter: adapter.id, rule: binding.rule.name })),
    shards: planShards(withHead, shardBytesMax),
    configEdits: planConfigEdits(config, {
      untied: parts.some(({ binding }) => binding.untied !== undefined),
      dtype,
      vocabulary: parts.find(({ binding }) => binding.vocabulary !== undefined)?.binding.vocabulary,
    }),
    sideFiles: side,
    warnings: [
      ...new Set(parts.flatMap(({ binding }) => binding.warnings)),
      ...tokenizerWarnings(parts, side),
      ...extraFileWarnings(base.checkpoint),
    ],
  };
}

function checkShardSize({ shardBytesMax }: MergeOptions): void {
  if (shardBytesMax !== undefined && !(Number.isSafeInteger(shardBytesMax) && shardBytesMax > 0)) {
    throw new WeldlineError(
      'plan.option-invalid',
      `The largest shard size is ${shardBytesMax}; it must be a whole number of bytes above 0.`,
    );
  }
}

/** Which weights an adapter was trained on is not in its files, so a person must say it. */
function checkMergeOnto({ quantized }: PlanInputs['base'], chosen: MergeOnto | undefined): void {
  const isQuantized = quantized.size > 0;
  if (isQuantized === (chosen === 'dequantized')) return;
  if (!isQuantized) {
    if (chosen !== 'dequantized') return;
    throw new WeldlineError(
      'plan.option-invalid',
      'merge_onto (--merge-onto) is dequantized, but the base is not quantised. Leave it out, or ' +
        'name the quantised checkpoint as the base.',
    );
  }
  throw new WeldlineError(
    'checkpoint.quantized-base',
    `The base is quantised (${quantized.size} weights). A QLoRA adapter was trained on what these ` +
      'dequantise to: to merge onto that, set base.merge_onto (--merge-onto) to dequantized. To ' +
      'merge onto the original weights, name their 16-bit repository as the base instead.',
  );
}

/**
 * @param name the output tensor
 * @param source the base tensor it comes from: another name only for the head of a tied pair
 */
function planTensor(
  name: string,
  source: string,
  { checkpoint, quantized }: PlanInputs['base'],
  parts: readonly Part[],
  options: MergeOptions,
): UnplacedTensor {
  const inBase = checkpoint.tensors.get(source);
  let from = quantized.get(source) ?? referTo('base', inBase!.file, inBase!);
  let { shape } = inBase!;
  let tokens: UnplacedTensor['tokens'];
  const deltas: PlannedDelta[] = [];
  const changes: PlannedChange[] = [];
  // No two replace a tensor or rows of it: that was refused as a contradiction.
  for (const { adapter, binding, weight } of parts) {
    const replacement = binding.replacements.get(name);
    if (replacement !== undefined) {
      from = referTo(adapter.id, ADAPTER_WEIGHTS_FILE, replacement);
      // May have other rows.
      shape = replacement.shape;
    }
    const rows = binding.tokens.get(name);
    if (rows !== undefined) {
      const rowsFrom = referTo(adapter.id, ADAPTER_WEIGHTS_FILE, rows.entry);
      tokens = { from: rowsFrom, indices: [...rows.indices] };
    }
    const bound = binding.deltas.get(name);
    if (bound !== undefined) deltas.push(planDelta(adapter.id, bound, weight));
    const change = binding.changes.get(name);
    if (change !== undefined) {
      changes.push(planChange(adapter.id, change, deltas.length, weight));
    }
  }
  const dtype = outputDtype(inBase!.dtype, options);
  const [first, ...others] = deltas;
  const [firstChange, ...otherChanges] = changes;
  return {
    name,
    dtype,
    // Of a quantised weight what it dequantises to.
    shape: [...shape],
    from,
    ...(first && { deltas: [first, ...others] }),
    ...(firstChange && { changes: [firstChange, ...otherChanges] }),
    ...(tokens && { tokens }),
  };
}

function planDelta(
  adapterId: string,
  { pair, transposed, isBias }: BoundDelta,
  weight: number,
): PlannedDelta {
  const { module, rank, alpha, bias } = pair;
  const scaling = weight * pair.scaling;
  if (isBias && bias !== undefined) {
    const row = { ...bias, shape: [1, ...bias.shape] };
    const a = referTo(adapterId, ADAPTER_WEIGHTS_FILE, row);
    return { adapter: adapterId, module, a, rank: 1, alpha, scaling, transposed };
  }
  const a = referTo(adapterId, ADAPTER_WEIGHTS_FILE, pair.a);
  const b = referTo(adapterId, ADAPTER_WEIGHTS_FILE, pair.b);
  const refer = (tensor: TensorEntry) => referTo(adapterId, ADAPTER_WEIGHTS_FILE, tensor);
  const { magnitude, rankScale, outScale } = pair;
  const vectors = {
    ...(magnitude && { magnitude: refer(magnitude) }),
    ...(rankScale && { rankScale: refer(rankScale) }),
    ...(outScale && { outScale: refer(outScale) }),
  };
  return { adapter: adapterId, module, a, b, ...vectors, rank, alpha, scaling, transposed };
}

function referTo(input: string, file: string, tensor: TensorEntry): TensorReference {
  const { offset, byteLength, dtype, shape } = tensor;
  return { input, file, offset, byteLength, dtype, shape: [...shape] };
}

/** Each tensor keeps the base's dtype, also one an adapter replaces, unless one was asked for. */
function outputDtype(dtype: Dtype, options: MergeOptions): Dtype {
  if (options.dtype === undefined || !isMergeDtype(dtype)) return dtype;
  return DTYPE_BY_TORCH_NAME[options.dtype];
}

/** Once the embeddings are no longer tied, a head that was not on disk must be. */
function addUntiedHead(
  groups: readonly TensorGroup[],
  base: PlanInputs['base'],
  parts: readonly Part[],
  options: MergeOptions,
): readonly TensorGroup[] {
  const untied = parts.find(({ binding }) => binding.untied !== undefined)?.binding.untied;
  if (untied === undefined) return groups;
  // Also where a head is on disk: while the pair is tied, loaders use the embedding in its place.
  const head = planTensor(untied.head, untied.embedding, base, parts, options);
  const { checkpoint } = base;
  const file = checkpoint.tensors.get(untied.head)?.file ?? checkpoint.files.at(-1)?.path;
  return groups.map((group) =>
    group.file === file
      ? { file, tensors: [...group.tensors.filter((t) => t.name !== untied.head), head] }
      : group,
  );
}

/** The adapter whose tokenizer goes beside the weights: that of a changed vocabulary, or the first. */
function tokenizerOf(parts: readonly Part[]): { id: string; files: readonly UnreadFile[] } {
  const part =
    parts.find(({ binding }) => binding.vocabulary !== undefined) ??
    parts.find(bringsTokenizer) ??
    parts[0];
  return { id: part?.adapter.id ?? '', files: part?.files ?? [] };
}

function bringsTokenizer({ files }: Part): boolean {
  return files.some(({ path }) => path === 'tokenizer_config.json');
}

function tokenizerWarnings(
  parts: readonly Part[],
  sideFiles: readonly { readonly input: string }[],
): string[] {
  const bringing = parts.filter(bringsTokenizer).map(({ adapter }) => adapter.id);
  const chosen = sideFiles.find(({ input }) => input !== 'base')?.input ?? 'base';
  if (bringing.length < 2) return [];
  return [
    `Adapters ${bringing.map((id) => `"${id}"`).join(', ')} bring a tokenizer each; that of ` +
      `"${chosen}" goes beside the weights. Check that they agree.`,
  ];
}

function extraFileWarnings(checkpoint: Checkpoint): string[] {
  const { extraFiles } = checkpoint;
  if (extraFiles.length === 0) return [];
  const noun = extraFiles.length === 1 ? 'file is' : 'files are';
  return [
    `${extraFiles.length} safetensors ${noun} not part of the base's index and will not be read: ` +
      `${extraFiles.slice(0, 5).join(', ')}.`,
  ];
}
