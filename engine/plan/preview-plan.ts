import type { Adapter } from '../adapters/adapter.ts';
import { ADAPTER_WEIGHTS_FILE } from '../adapters/adapter.ts';
import { type Binding, type BoundDelta, bindAdapter } from '../adapters/bind-adapter.ts';
import type { ModelConfig } from '../architectures/model-config.ts';
import { WeldlineError } from '../errors.ts';
import type { Checkpoint } from '../safetensors/checkpoint.ts';
import { DTYPE_BY_TORCH_NAME, type Dtype, isMergeDtype } from '../safetensors/dtype.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import { planConfigEdits } from './config-edits.ts';
import { groupByFile, planShards, type TensorGroup, type UnplacedTensor } from './output-shards.ts';
import {
  ENGINE_FORMAT,
  type MergeOnto,
  type MergeOptions,
  type PlannedDelta,
  type PlanPreview,
  type TensorReference,
  type TensorSource,
  type UnreadFile,
} from './plan.ts';
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
  readonly adapter: { readonly adapter: Adapter; readonly files: readonly UnreadFile[] };
  readonly options: MergeOptions;
}

/**
 * Plans a merge but for the digests of its files: binds every adapter tensor, then fixes every
 * output byte range. Pure; reads nothing.
 *
 * @throws WeldlineError `adapter.*` and `checkpoint.*` codes of binding, `plan.option-invalid`,
 *   `checkpoint.quantized-base` without a choice of what is merged onto, `side-file.unsafe`
 */
export function previewPlan({ base, adapter: input, options }: PlanInputs): PlanPreview {
  const { config } = base;
  const { adapter } = input;
  checkOptions(options, adapter.id);
  checkMergeOnto(base, options.mergeOnto);
  const binding = bindAdapter(adapter, base.checkpoint, config);
  const groups = groupByFile(base.checkpoint.files, (name) =>
    planTensor(name, name, base, adapter.id, binding, options),
  );
  const withHead = addUntiedHead(groups, base, adapter.id, binding, options);
  const { dtype, shardBytesMax, mergeOnto } = options;
  return {
    format: 'weldline.plan',
    engineFormat: ENGINE_FORMAT,
    options: {
      ...(dtype === undefined ? {} : { dtype }),
      ...(shardBytesMax === undefined ? {} : { shardBytesMax }),
      ...(mergeOnto === undefined ? {} : { mergeOnto }),
    },
    inputs: [
      { id: 'base', files: [...base.files] },
      { id: adapter.id, files: [...input.files] },
    ],
    rules: [{ adapter: adapter.id, rule: binding.rule.name }],
    shards: planShards(withHead, shardBytesMax),
    configEdits: planConfigEdits(config, {
      untied: binding.untied !== undefined,
      dtype,
      vocabulary: binding.vocabulary,
    }),
    sideFiles: chooseSideFiles(base.files, { id: adapter.id, files: input.files }),
    warnings: [...binding.warnings, ...extraFileWarnings(base.checkpoint)],
  };
}

function checkOptions({ shardBytesMax }: MergeOptions, adapterId: string): void {
  if (shardBytesMax !== undefined && !(Number.isSafeInteger(shardBytesMax) && shardBytesMax > 0)) {
    throw new WeldlineError(
      'plan.option-invalid',
      `The largest shard size is ${shardBytesMax}; it must be a whole number of bytes above 0.`,
    );
  }
  if (adapterId === 'base') {
    throw new WeldlineError(
      'plan.option-invalid',
      'An adapter cannot have the id "base", which names the base in plans. Give it another id.',
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
  adapterId: string,
  binding: Binding,
  options: MergeOptions,
): UnplacedTensor {
  const inBase = checkpoint.tensors.get(source);
  const replacement = binding.replacements.get(name);
  const from =
    replacement === undefined
      ? (quantized.get(source) ?? referTo('base', inBase!.file, inBase!))
      : referTo(adapterId, ADAPTER_WEIGHTS_FILE, replacement);
  const bound = binding.deltas.get(name);
  const dtype = outputDtype(inBase!.dtype, options);
  // Of a quantised weight what it dequantises to; a replacement's may have other rows.
  const shape = [...(replacement ?? inBase!).shape];
  const rows = binding.tokens.get(name);
  const tokens = rows && {
    from: referTo(adapterId, ADAPTER_WEIGHTS_FILE, rows.entry),
    indices: [...rows.indices],
  };
  const planned = { name, dtype, shape, from, ...(tokens && { tokens }) };
  if (bound === undefined) return planned;
  return { ...planned, delta: planDelta(adapterId, bound) };
}

function planDelta(adapterId: string, { pair, transposed, isBias }: BoundDelta): PlannedDelta {
  const { module, rank, alpha, scaling, bias } = pair;
  if (isBias && bias !== undefined) {
    const row = { ...bias, shape: [1, ...bias.shape] };
    const a = referTo(adapterId, ADAPTER_WEIGHTS_FILE, row);
    return { adapter: adapterId, module, a, rank: 1, alpha, scaling, transposed };
  }
  const a = referTo(adapterId, ADAPTER_WEIGHTS_FILE, pair.a);
  const b = referTo(adapterId, ADAPTER_WEIGHTS_FILE, pair.b);
  const magnitude = pair.magnitude && {
    magnitude: referTo(adapterId, ADAPTER_WEIGHTS_FILE, pair.magnitude),
  };
  return { adapter: adapterId, module, a, b, ...magnitude, rank, alpha, scaling, transposed };
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
  adapterId: string,
  binding: Binding,
  options: MergeOptions,
): readonly TensorGroup[] {
  const { untied } = binding;
  if (untied === undefined) return groups;
  // Also where a head is on disk: while the pair is tied, loaders use the embedding in its place.
  const head = planTensor(untied.head, untied.embedding, base, adapterId, binding, options);
  const { checkpoint } = base;
  const file = checkpoint.tensors.get(untied.head)?.file ?? checkpoint.files.at(-1)?.path;
  return groups.map((group) =>
    group.file === file
      ? { file, tensors: [...group.tensors.filter((t) => t.name !== untied.head), head] }
      : group,
  );
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
