import type { Adapter } from '../adapters/adapter.ts';
import type { BoundDelta } from '../adapters/bind-adapter.ts';
import type { FourBitEvidence } from '../adapters/four-bit-evidence.ts';
import type { ModelConfig } from '../architectures/model-config.ts';
import { WeldlineError } from '../errors.ts';
import type { Checkpoint } from '../safetensors/checkpoint.ts';
import { DTYPE_BY_TORCH_NAME, type Dtype, isMergeDtype } from '../safetensors/dtype.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import {
  bindAdapters,
  chooseWeights,
  inPlanOrder,
  type OpenedAdapter,
  type Part,
} from './combine-adapters.ts';
import {
  chooseCombination,
  combinationAsWhole,
  combinationWarnings,
  combineDeltas,
} from './combine-deltas.ts';
import { planConfigEdits } from './config-edits.ts';
import { checkMergeOnto } from './merge-onto.ts';
import { groupByFile, planShards, type TensorGroup, type UnplacedTensor } from './output-shards.ts';
import {
  ENGINE_FORMAT,
  type MergeOptions,
  type PlannedChange,
  type PlannedDelta,
  type PlanPreview,
  type TensorReference,
  type TensorSource,
  type TokenRows,
  type UnreadFile,
} from './plan.ts';
import { planChange } from './plan-change.ts';
import {
  combinationOption,
  planCombination,
  refuseUnthinnable,
  type ThinnedPart,
  withDensities,
} from './plan-combination.ts';
import { replicateLayers, replicationOf } from './replicate-layers.ts';
import { chooseSideFiles } from './side-files.ts';
import { type Thinning, thinningOf } from './thinning.ts';

/** What a plan is made of: what headers and configurations say, and which files count. */
export interface PlanInputs {
  readonly base: {
    readonly checkpoint: Checkpoint;
    /** Where the weights come from that the checkpoint holds quantised, by name. */
    readonly quantized: ReadonlyMap<string, TensorSource>;
    readonly config: ModelConfig;
    readonly files: readonly UnreadFile[];
  };
  /** What says that an adapter was trained on 4-bit weights. */
  readonly evidence?: FourBitEvidence | undefined;
  /** In the order in which they are named; they are added in that of `inPlanOrder`. */
  readonly adapters: readonly OpenedAdapter[];
  readonly options: MergeOptions;
}

/**
 * Plans a merge but for the digests of its files: binds every adapter tensor, then fixes every
 * output byte range. Pure; reads nothing.
 *
 * @throws WeldlineError `adapter.*` and `checkpoint.*` codes of binding, `plan.option-invalid`,
 *   `checkpoint.quantized-base` and `adapter.quantized-training` without a choice of what is merged
 *   onto, `side-file.unsafe`
 */
export function previewPlan(inputs: PlanInputs): PlanPreview {
  const { base: stored, evidence, adapters, options } = inputs;
  const replication = replicationOf(adapters);
  const base = replication === undefined ? stored : replicateLayers(stored, replication);
  const { config } = base;
  checkShardSize(options);
  const ids = adapters.map(({ adapter }) => adapter.id);
  const weights = chooseWeights(ids, options.combination);
  checkMergeOnto(base, options.mergeOnto, evidence);
  const thinning = thinningOf(options.combination, ids.length);
  const { method } = options.combination ?? {};
  const bound = bindAdapters(adapters, weights, base.checkpoint, config, method);
  const parts = inPlanOrder(withDensities(bound, thinning), options.combination);
  refuseUnthinnable(parts, thinning);
  const groups = groupByFile(base.checkpoint.files, (name) =>
    planTensor(name, name, base, parts, thinning, options),
  );
  const withHead = addUntiedHead(groups, base, parts, thinning, options);
  const chosen = chooseCombination(parts, options.combination);
  const shards = planShards(combineDeltas(withHead, parts, chosen), options.shardBytesMax);
  const { dtype, shardBytesMax, mergeOnto } = options;
  const side = chooseSideFiles(base.files, tokenizerOf(parts));
  return {
    format: 'weldline.plan',
    engineFormat: ENGINE_FORMAT,
    options: {
      ...(dtype === undefined ? {} : { dtype }),
      ...(shardBytesMax === undefined ? {} : { shardBytesMax }),
      ...(mergeOnto === undefined ? {} : { mergeOnto }),
      ...combinationOption(parts, thinning, combinationAsWhole(shards, chosen)),
    },
    inputs: [
      { id: 'base', files: [...base.files] },
      ...parts.map(({ adapter, files }) => ({ id: adapter.id, files: [...files] })),
    ],
    rules: parts.flatMap(({ adapter, binding }) =>
      [binding.rule.name, ...binding.blockRules, ...(replication ? ['layer_replication'] : [])].map(
        (rule) => ({
          adapter: adapter.id,
          rule,
          ...(adapter.format !== 'peft' && { format: adapter.format }),
        }),
      ),
    ),
    shards,
    configEdits: planConfigEdits(config, {
      untied: parts.some(({ binding }) => binding.untied !== undefined),
      dtype,
      vocabulary: parts.find(({ binding }) => binding.vocabulary !== undefined)?.binding.vocabulary,
      layerRanges: replication?.ranges,
    }),
    sideFiles: side,
    warnings: [
      ...new Set(
        parts.flatMap(({ adapter, binding }) => [...adapter.warnings, ...binding.warnings]),
      ),
      ...combinationWarnings(shards, chosen),
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

/**
 * @param name the output tensor
 * @param source the base tensor it comes from: another name only for the head of a tied pair
 */
function planTensor(
  name: string,
  source: string,
  { checkpoint, quantized }: PlanInputs['base'],
  parts: readonly ThinnedPart[],
  thinning: Thinning | undefined,
  options: MergeOptions,
): UnplacedTensor {
  const inBase = checkpoint.tensors.get(source);
  let from = quantized.get(source) ?? referTo('base', inBase!.file, inBase!);
  let { shape } = inBase!;
  const tokens: TokenRows[] = [];
  const deltas: PlannedDelta[] = [];
  const changes: PlannedChange[] = [];
  const combination = planCombination(name, parts, thinning);
  // No two replace a tensor or the same rows of it: that was refused as a contradiction.
  for (const { adapter, binding, weight } of parts) {
    const replacement = binding.replacements.get(name);
    if (replacement !== undefined) {
      from = referTo(adapter.id, adapter.weightsFile, replacement);
      // May have other rows.
      shape = replacement.shape;
    }
    const rows = binding.tokens.get(name);
    if (rows !== undefined) {
      const rowsFrom = referTo(adapter.id, adapter.weightsFile, rows.entry);
      tokens.push({ from: rowsFrom, indices: [...rows.indices] });
    }
    // Where deltas are combined one by one, each keeps its own scaling.
    const factor = combination === undefined ? weight : 1;
    const bound = binding.deltas.get(name);
    if (bound !== undefined) deltas.push(planDelta(adapter, bound, factor));
    const change = binding.changes.get(name);
    if (change !== undefined) {
      changes.push(planChange(adapter, change, deltas.length, weight));
    }
    for (const block of binding.blocks.get(name) ?? []) {
      deltas.push(planDelta(adapter, block, factor));
    }
  }
  const dtype = outputDtype(inBase!.dtype, options);
  const [first, ...others] = deltas;
  const [firstChange, ...otherChanges] = changes;
  const [firstRows, ...otherRows] = tokens;
  return {
    name,
    dtype,
    // Of a quantised weight what it dequantises to.
    shape: [...shape],
    from,
    ...(first && { deltas: [first, ...others] }),
    ...(combination && { combination }),
    ...(firstChange && { changes: [firstChange, ...otherChanges] }),
    ...(firstRows && { tokens: [firstRows, ...otherRows] }),
  };
}

function planDelta(
  { id: adapterId, weightsFile }: Adapter,
  { pair, transposed, isBias, rows, aColumn, bColumns }: BoundDelta,
  weight: number,
): PlannedDelta {
  const { module, rank, alpha, bias } = pair;
  const scaling = weight * pair.scaling;
  if (isBias && bias !== undefined) {
    const row = { ...bias, shape: [1, ...bias.shape] };
    const a = referTo(adapterId, weightsFile, row);
    return { adapter: adapterId, module, a, rank: 1, alpha, scaling, transposed };
  }
  const refer = (tensor: TensorEntry) => referTo(adapterId, weightsFile, tensor);
  const { magnitude, rankScale, outScale, isOfTranspose } = pair;
  const vectors = {
    ...(magnitude && { magnitude: refer(magnitude) }),
    ...(magnitude && transposed !== (isOfTranspose === true) && { byColumns: true as const }),
    ...(rankScale && { rankScale: refer(rankScale) }),
    ...(outScale && { outScale: refer(outScale) }),
  };
  const block = {
    ...(rows && { rows }),
    ...(aColumn === undefined ? {} : { aColumn }),
    ...(bColumns && { bColumns }),
  };
  const factors = { adapter: adapterId, module, a: refer(pair.a), b: refer(pair.b), ...vectors };
  return { ...factors, rank, alpha, scaling, transposed, ...block };
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
  parts: readonly ThinnedPart[],
  thinning: Thinning | undefined,
  options: MergeOptions,
): readonly TensorGroup[] {
  const untied = parts.find(({ binding }) => binding.untied !== undefined)?.binding.untied;
  if (untied === undefined) return groups;
  // Also where a head is on disk: while the pair is tied, loaders use the embedding in its place.
  const head = planTensor(untied.head, untied.embedding, base, parts, thinning, options);
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
