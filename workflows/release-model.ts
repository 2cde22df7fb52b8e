import {
  executeChild,
  ParentClosePolicy,
  proxyActivities,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities } from '../activities/create-activities.ts';
import type {
  Judged,
  MergedContext,
  QualityPlan,
  ReleaseParts,
} from '../activities/quality-types.ts';
import type { PlanReference, ResolvedInputs, Roots } from '../activities/types.ts';
import type { Recipe } from '../config/recipe.ts';
import type { CompletedShard } from '../engine/merge/journal.ts';
import type { Verification } from '../engine/verify/verify-merge.ts';
import { allEnded } from './all-ended.ts';
import { Approvals } from './approvals.ts';
import { assessMerge } from './assess-merge.ts';
import { mergeModel } from './merge-model.ts';
import {
  type ReleaseInput,
  type ReleaseResult,
  STAGES,
  type Stage,
  statusQuery,
} from './messages.ts';
import { longWork, shortWork } from './options.ts';
import { publishRelease } from './publish-release.ts';
import { StageRunner } from './stage-runner.ts';

/** What a release knows so far; queries show it. */
interface Progress {
  inputs?: ResolvedInputs;
  plan?: PlanReference;
  judged?: Judged;
  warnings: readonly string[];
}

/** One release, from a recipe to a published, verified checkpoint and what is made of it. */
export async function releaseModel(input: ReleaseInput): Promise<ReleaseResult> {
  const { recipe, recipeDigest } = input;
  const { workflowId, runId, startTime } = workflowInfo();
  const run = { workflowId, runId, startedAt: startTime.toISOString() };
  const mergeWorkflowId = `${workflowId}/merge`;
  const runner = new StageRunner(stagesOf(recipe));
  const approvals = new Approvals(runner);
  const progress: Progress = { warnings: [] };
  setHandler(statusQuery, () => {
    const { plan, warnings, ...known } = progress;
    return {
      name: recipe.name,
      version: recipe.version,
      recipeDigest,
      stages: runner.stages,
      ...(runner.waiting === undefined ? {} : { waiting: runner.waiting }),
      ...known,
      ...(plan === undefined ? {} : { plan, mergeWorkflowId }),
      warnings,
    };
  });

  const { merged, verification, quality } = await makeMerge(
    { ...input, mergeWorkflowId },
    runner,
    progress,
  );
  let release: ReleaseParts = { ...merged, verification, run };
  if (quality !== undefined) {
    const { judged, ...assessed } = await assessMerge(input, merged, quality, runner);
    const decision = judged?.decision;
    release = { ...release, quality: { plan: quality, ...assessed, decision } };
    if (judged !== undefined) {
      progress.judged = judged;
      progress.warnings = [...progress.warnings, ...judged.warnings];
    }
  }
  const published = await publishRelease(input, release, progress.judged, runner, approvals);
  progress.warnings = [...progress.warnings, ...published.warnings];
  return {
    artefact: merged.inputs.artefact,
    directory: merged.sealed.directory,
    planDigest: merged.planDigest,
    manifestDigest: merged.sealed.manifestDigest,
    publications: published.publications,
    ...(published.aliases.length > 0 && { aliases: published.aliases }),
    ...(published.warnings.length > 0 && { aliasWarnings: published.warnings }),
    report: published.report,
    ...(progress.judged && { judged: progress.judged }),
    ...(published.approval && { approval: published.approval }),
    verification,
    warnings: progress.warnings,
  };
}

interface Made {
  readonly merged: MergedContext;
  readonly verification: Verification;
  /** What is made of it and how it is judged, if the recipe asks for it. */
  readonly quality?: QualityPlan | undefined;
}

/** From names to a checked checkpoint in the workspace. */
async function makeMerge(
  input: ReleaseInput & { readonly mergeWorkflowId: string },
  runner: StageRunner,
  progress: Progress,
): Promise<Made> {
  const { recipe, recipeDigest, heartbeatTimeoutMs, mergeWorkflowId } = input;
  const context = { recipe, recipeDigest };
  const quick = proxyActivities<Activities>(shortWork(heartbeatTimeoutMs));
  const long = proxyActivities<Activities>(longWork(heartbeatTimeoutMs));

  const inputs = await runner.run('resolve', () => long.resolveInputs(context));
  progress.inputs = inputs;
  const adapters = [inputs.adapter, ...(inputs.otherAdapters ?? [])];
  const adapterRoots = await runner.run('fetch adapter', () =>
    allEnded(adapters.map((adapter) => long.fetchInput(adapter))),
  );
  let quality: QualityPlan | undefined;
  const preflight = await runner.run('preflight', async () => {
    const checked = await quick.preflight(context, inputs, ...adapterRoots);
    if (recipe.conversions !== undefined || recipe.evaluation !== undefined) {
      quality = await long.planQuality(context, inputs, ...adapterRoots);
    }
    return checked;
  });
  const ofQuality = quality?.warnings ?? [];
  progress.warnings = [...preflight.warnings, ...ofQuality];
  const baseRoot = await runner.run('fetch base', () => long.fetchInput(inputs.base));
  const roots: Roots = {
    base: baseRoot,
    ...Object.fromEntries(recipe.adapters.map(({ id }, index) => [id, adapterRoots[index] ?? ''])),
  };
  const plan = await runner.run('plan', () => long.plan(context, inputs, roots));
  progress.plan = plan;
  progress.warnings = [...plan.warnings, ...ofQuality];

  const shards = await runner.run('merge', () => merge(input, plan, roots, mergeWorkflowId));
  const planDigest = plan.digest;
  const streams = plan.streamed === undefined ? [] : [plan.streamed];
  const sealed = await runner.run('seal', () =>
    quick.seal({ ...context, inputs, planDigest, roots, shards }),
  );
  const verification = await runner.run('verify', () => long.verify(planDigest, roots, ...streams));
  return { merged: { ...context, inputs, planDigest, sealed, roots }, verification, quality };
}

/** The stages that a recipe asks for. */
function stagesOf({ conversions, evaluation, approval }: Recipe): readonly Stage[] {
  const isWanted: Partial<Record<Stage, boolean>> = {
    convert: (conversions ?? []).length > 0,
    evaluate: evaluation !== undefined,
    gate: evaluation !== undefined,
    approve: approval === 'required',
  };
  return STAGES.filter((stage) => isWanted[stage] ?? true);
}

function merge(
  input: ReleaseInput,
  plan: PlanReference,
  roots: Roots,
  workflowId: string,
): Promise<CompletedShard[]> {
  const { threads, memoryBudgetBytes } = input.recipe.merge;
  const limits = {
    ...(threads === undefined ? {} : { threads }),
    ...(memoryBudgetBytes === undefined ? {} : { memoryBudgetBytes }),
  };
  return executeChild(mergeModel, {
    workflowId,
    args: [
      {
        plan,
        roots,
        taskQueue: input.mergeTaskQueue,
        parallelShards: input.parallelShards,
        heartbeatTimeoutMs: input.heartbeatTimeoutMs,
        ...limits,
      },
    ],
    cancellationType: 'WAIT_CANCELLATION_COMPLETED',
    parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
  });
}
