import { plannedTargets } from '../activities/check-targets.ts';
import { loadRecipe, mergeOptionsOf, type Recipe } from '../config/recipe.ts';
import { measureMerge } from '../engine/insight/measure-merge.ts';
import { compileKernel } from '../kernels/index.ts';
import { EXIT } from './exit-codes.ts';
import { interruptionSignal } from './interruption.ts';
import {
  type MergeArguments,
  type MergeRequest,
  parseMergeArguments,
  prepareMerge,
} from './merge-inputs.ts';
import type { Output } from './output.ts';
import { previewQuality } from './plan-quality.ts';
import { printTargets } from './plan-targets.ts';
import { printPlan } from './print-plan.ts';
import { Progress } from './progress.ts';
import { usage } from './usage.ts';

export interface PlanCommand extends Partial<MergeArguments> {
  readonly tensors?: boolean;
  readonly digest?: boolean;
  readonly retention?: boolean;
}

/** What is read without being asked for to know the plan's digest: a second or two. */
const READ_UNASKED_BYTES_MAX = 1_000_000_000;

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
  const signal = interruptionSignal();
  const recipe = recipePath === undefined ? undefined : (await loadRecipe(recipePath)).recipe;
  const targets = recipe === undefined ? [] : plannedTargets(recipe);
  const request = toRequest(recipe, options);
  const prepared = await prepareMerge(request, {
    progress,
    signal,
    baseStaysRemote: true,
  });
  const plan =
    options.digest === true || prepared.unreadBytes <= READ_UNASKED_BYTES_MAX
      ? await prepared.plan()
      : undefined;
  const kernel = await compileKernel();
  const { base } = prepared;
  const reading = base === 'remote' && options.retention !== true ? 'none' : base;
  const insight = await measureMerge(prepared.preview, prepared.models, kernel, {
    base: reading,
    signal,
  });
  const quality = recipe && (await previewQuality(recipe, prepared, insight, signal));
  progress.clear();
  const withTensors = options.tensors === true;
  printPlan(
    { ...prepared, complete: plan, kernel: kernel.kind, withTensors, insight, quality },
    output,
  );
  if (recipe !== undefined) printTargets(targets, recipe.sign, output);
  return EXIT.ok;
}

function toRequest(recipe: Recipe | undefined, options: PlanCommand): MergeRequest {
  const { base, adapter = [], combine, weights, rank, density, seed, majoritySign } = options;
  if (recipe === undefined) {
    if (base === undefined) throw usage('Give a recipe, or --base and --adapter.');
    return parseMergeArguments({ ...options, base, adapter });
  }
  if (base !== undefined || adapter.length > 0) {
    throw usage('Give a recipe, or --base and --adapter, not both.');
  }
  const how = [combine, weights, rank, density, seed, majoritySign];
  if (how.some((option) => option !== undefined)) {
    throw usage(
      'A recipe says itself how adapters are combined; leave --combine and what goes with it out.',
    );
  }
  return {
    base: recipe.base,
    adapters: recipe.adapters,
    ...recipe.merge,
    ...mergeOptionsOf(recipe),
  };
}
