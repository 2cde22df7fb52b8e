import { loadRecipe } from '../config/recipe.ts';
import { type TensorWork, workOf } from '../engine/merge/tensor-work.ts';
import { outputBytes } from '../engine/plan/disk-space.ts';
import { type PlannedTensor, planDigest } from '../engine/plan/plan.ts';
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
}

const WORDS: Readonly<Record<TensorWork, string>> = {
  copy: 'copied',
  cast: 'cast',
  delta: 'merged',
};

/** `weldline plan`: what a merge would do, without doing it. */
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
  progress.clear();
  print(prepared, options.tensors === true, output);
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

function print(prepared: PreparedMerge, withTensors: boolean, output: Output): void {
  const { plan, resources, roots } = prepared;
  const tensors = plan.shards.flatMap((shard) => shard.tensors);
  const summary = (['delta', 'cast', 'copy'] as const).map((work) => {
    const chosen = tensors.filter((tensor) => workOf(tensor) === work);
    const bytes = chosen.reduce((sum, tensor) => sum + tensor.byteLength, 0);
    return { work: WORDS[work], tensors: chosen.length, bytes };
  });
  const replaced = tensors.filter((tensor) => tensor.from.input !== 'base').length;

  output.line(`plan ${planDigest(plan)}`);
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
    plan: planDigest(plan),
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
