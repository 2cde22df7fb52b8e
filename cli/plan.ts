import { loadRecipe } from '../config/recipe.ts';
import { type TensorWork, workOf } from '../engine/merge/tensor-work.ts';
import { outputBytes } from '../engine/plan/disk-space.ts';
import { type Plan, type PlannedTensor, planDigest } from '../engine/plan/plan.ts';
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

const WORDS: Readonly<Record<TensorWork, string>> = {
  copy: 'copied',
  cast: 'cast',
  delta: 'merged',
};

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
  print(prepared, plan, options.tensors === true, output);
  return EXIT.ok;
}

async function toRequest(
  recipePath: string | undefined,
  options: PlanCommand,
): Promise<MergeRequest> {
  const { base, adapter = [] } = options;
  if (recipePath === undefined) {
    if (base === undefined) throw usage('Give a recipe, or --base and --adapter.');
    return parseMergeArguments({ ...options, base, adapter });
  }
  if (base !== undefined || adapter.length > 0) {
    throw usage('Give a recipe, or --base and --adapter, not both.');
  }
  const { recipe } = await loadRecipe(recipePath);
  return { base: recipe.base, adapter: recipe.adapters[0], ...recipe.merge };
}

function print(
  prepared: PreparedMerge,
  complete: Plan | undefined,
  withTensors: boolean,
  output: Output,
): void {
  const { preview, unreadBytes, resources, roots } = prepared;
  const plan = complete ?? preview;
  const digest = complete && planDigest(complete);
  const tensors = plan.shards.flatMap((shard) => shard.tensors);
  const summary = (['delta', 'cast', 'copy'] as const).map((work) => {
    const chosen = tensors.filter((tensor) => workOf(tensor) === work);
    const bytes = chosen.reduce((sum, tensor) => sum + tensor.byteLength, 0);
    return { work: WORDS[work], tensors: chosen.length, bytes };
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
  if (replaced > 0) output.line(`${replaced} tensors are replaced by the adapter's own`);
  output.line();
  output.line(
    formatTable([
      ['shards', String(plan.shards.length)],
      ['disk', formatBytes(outputBytes(plan))],
      ['memory', `${formatBytes(resources.memoryBytes)} at most`],
      ['threads', `${resources.threads}, windows of ${formatBytes(resources.windowBytes)}`],
      ['binding', plan.rules.map(({ adapter, rule }) => `${adapter}: ${rule}`).join(', ')],
      ...plan.configEdits.map((edit) => ['config', `${edit.path.join('.')} becomes ${edit.value}`]),
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

function tensorRow(tensor: PlannedTensor): string[] {
  const { delta } = tensor;
  const how =
    delta === undefined ? '' : `r ${delta.rank}, alpha ${delta.alpha}, × ${delta.scaling}`;
  return [
    WORDS[workOf(tensor)],
    tensor.name,
    tensor.dtype,
    `[${tensor.shape.join(', ')}]`,
    tensor.from.input === 'base' ? '' : `from ${tensor.from.input}`,
    how + (delta?.transposed === true ? ', transposed' : ''),
  ];
}
