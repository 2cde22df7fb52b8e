import { loadRecipe, mergeOptionsOf } from '../config/recipe.ts';
import { type TensorWork, workOf } from '../engine/merge/tensor-work.ts';
import { OVERHEAD_BYTES, outputBytes } from '../engine/plan/disk-space.ts';
import {
  type ConfigEdit,
  type Plan,
  type PlannedTensor,
  planDigest,
  type TensorSource,
} from '../engine/plan/plan.ts';
import { compileKernel, type KernelKind } from '../kernels/index.ts';
import { EXIT } from './exit-codes.ts';
import { formatBytes, formatTable } from './format.ts';
import { interruptionSignal } from './interruption.ts';
import {
  type MergeArguments,
  type MergeRequest,
  type PreparedMerge,
  parseMergeArguments,
  prepareMerge,
  usage,
} from './merge-inputs.ts';
import type { Output } from './output.ts';
import { Progress } from './progress.ts';

export interface PlanCommand extends Partial<MergeArguments> {
  readonly tensors?: boolean;
  readonly digest?: boolean;
}

/** What is read without being asked for to know the plan's digest: a second or two. */
const READ_UNASKED_BYTES_MAX = 1_000_000_000;

const KERNELS: Readonly<Record<KernelKind, string>> = {
  native: 'native code',
  wasm: 'WebAssembly',
  scalar: 'JavaScript, very slow: this runtime has no WebAssembly SIMD',
};

const WORDS: Readonly<Record<TensorWork, string>> = {
  copy: 'copied',
  cast: 'cast',
  dequantize: 'dequantized',
  delta: 'merged',
  band: 'merged',
};

const WORK_ORDER = [WORDS.delta, WORDS.dequantize, WORDS.cast, WORDS.copy];

/**
 * `weldline plan`: what a merge would do, without doing it. The digest of the plan covers the
 * digests of its files, which take hours of reading for the largest models: that is left out.
 */
export async function runPlan(
  recipePath: string | undefined,
  options: PlanCommand,
  output: Output,
): Promise<number> {
  const progress = new Progress();
  const request = await toRequest(recipePath, options);
  const prepared = await prepareMerge(request, {
    progress,
    signal: interruptionSignal(),
    baseStaysRemote: true,
  });
  const plan =
    options.digest === true || prepared.unreadBytes <= READ_UNASKED_BYTES_MAX
      ? await prepared.plan()
      : undefined;
  progress.clear();
  const { kind: kernel } = await compileKernel();
  print({ ...prepared, complete: plan, kernel, withTensors: options.tensors === true }, output);
  return EXIT.ok;
}

async function toRequest(
  recipePath: string | undefined,
  options: PlanCommand,
): Promise<MergeRequest> {
  const { base, adapter = [], combine, weights } = options;
  if (recipePath === undefined) {
    if (base === undefined) throw usage('Give a recipe, or --base and --adapter.');
    return parseMergeArguments({ ...options, base, adapter });
  }
  if (base !== undefined || adapter.length > 0) {
    throw usage('Give a recipe, or --base and --adapter, not both.');
  }
  if (combine !== undefined || weights !== undefined) {
    throw usage(
      'A recipe says itself how adapters are combined; leave --combine and --weights out.',
    );
  }
  const { recipe } = await loadRecipe(recipePath);
  return {
    base: recipe.base,
    adapters: recipe.adapters,
    ...recipe.merge,
    ...mergeOptionsOf(recipe),
  };
}

interface PrintedPlan extends PreparedMerge {
  readonly complete: Plan | undefined;
  /** What merges on this machine. */
  readonly kernel: KernelKind;
  readonly withTensors: boolean;
}

function print(printed: PrintedPlan, output: Output): void {
  const { preview, complete, unreadBytes, resources, roots, kernel, withTensors } = printed;
  const plan = complete ?? preview;
  const digest = complete && planDigest(complete);
  const tensors = plan.shards.flatMap((shard) => shard.tensors);
  const summary = WORK_ORDER.flatMap((work) => {
    const chosen = tensors.filter((tensor) => WORDS[workOf(tensor)] === work);
    if (work === WORDS.dequantize && chosen.length === 0) return [];
    const bytes = chosen.reduce((sum, tensor) => sum + tensor.byteLength, 0);
    return [{ work, tensors: chosen.length, bytes }];
  });
  const replaced = tensors.filter((tensor) => tensor.from.input !== 'base').length;

  output.line(
    digest === undefined
      ? `plan digest: not computed (${formatBytes(unreadBytes)} unread; --digest computes it)`
      : `plan ${digest}`,
  );
  output.line();
  output.line(
    formatTable(summary.map((s) => [s.work, `${s.tensors} tensors`, formatBytes(s.bytes)])),
  );
  if (replaced > 0) output.line(`${replaced} tensors are replaced by an adapter's own`);
  output.line();
  output.line(
    formatTable([
      ['shards', String(plan.shards.length)],
      ['disk', `${formatBytes(outputBytes(plan) + OVERHEAD_BYTES)} must be free for a merge`],
      ['memory', `${formatBytes(resources.memoryBytes)} at most`],
      ['threads', `${resources.threads}, windows of ${formatBytes(resources.windowBytes)}`],
      ['kernel', KERNELS[kernel]],
      ['binding', plan.rules.map(({ adapter, rule }) => `${adapter}: ${rule}`).join(', ')],
      ...plan.configEdits.map((edit) => ['config', describeEdit(edit)]),
      ['beside', plan.sideFiles.map((file) => file.path).join(', ')],
      ...Object.entries(roots).map(([id, root]) => [id, root]),
    ]),
  );
  if (withTensors) {
    output.line();
    output.line(formatTable(tensors.map(tensorRow)));
  }
  for (const warning of plan.warnings) output.warn(warning);
  output.result({
    plan: digest ?? null,
    unreadBytes: digest === undefined ? unreadBytes : 0,
    summary,
    replaced,
    diskBytes: outputBytes(plan),
    memoryBytes: resources.memoryBytes,
    threads: resources.threads,
    windowBytes: resources.windowBytes,
    kernel,
    rules: plan.rules,
    configEdits: plan.configEdits,
    sideFiles: plan.sideFiles,
    shards: plan.shards.map(({ file, size, tensors: list }) => ({
      file,
      size,
      tensors: list.length,
    })),
    warnings: plan.warnings,
    ...(withTensors ? { tensors } : {}),
  });
}

function describeEdit({ path, value }: ConfigEdit): string {
  return `${path.join('.')} ${value === null ? 'is removed' : `becomes ${value}`}`;
}

const CHANGES = {
  hadamard: 'LoHa added',
  kronecker: 'LoKr added',
  scale: 'scaled ((IA)³)',
  rotation: 'rotated (OFT)',
} as const;

function tensorRow(tensor: PlannedTensor): string[] {
  const { tokens } = tensor;
  const deltas = tensor.deltas ?? [];
  const how = [
    ...deltas.flatMap((delta) => [
      ...(deltas.length > 1 ? [delta.adapter] : []),
      `r ${delta.rank}`,
      `alpha ${delta.alpha}`,
      `× ${delta.scaling}`,
      ...(delta.transposed ? ['transposed'] : []),
      ...(delta.magnitude ? ['scaled (DoRA)'] : []),
    ]),
    ...(tensor.changes ?? []).map(({ adapter, kind }) => `${CHANGES[kind]} by ${adapter}`),
    ...(tokens ? [`${tokens.indices.length} rows from ${tokens.from.input}`] : []),
  ];
  return [
    WORDS[workOf(tensor)],
    tensor.name,
    tensor.dtype,
    `[${tensor.shape.join(', ')}]`,
    describeSource(tensor.from),
    how.join(', '),
  ];
}

function describeSource({ input, quantization }: TensorSource): string {
  if (quantization !== undefined) return `dequantized from ${quantization.scheme}`;
  return input === 'base' ? '' : `from ${input}`;
}
