import {
  executeChild,
  ParentClosePolicy,
  proxyActivities,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities } from '../activities/create-activities.ts';
import type { PlanReference, ResolvedInputs, Roots } from '../activities/types.ts';
import type { CompletedShard } from '../engine/merge/journal.ts';
import { mergeModel } from './merge-model.ts';
import { type ReleaseInput, type ReleaseResult, statusQuery } from './messages.ts';
import { longWork, shortWork } from './options.ts';
import { StageRunner } from './stage-runner.ts';

/** One release, from a recipe to a published, verified checkpoint. */
export async function releaseModel(input: ReleaseInput): Promise<ReleaseResult> {
  const { recipe, recipeDigest, heartbeatTimeoutMs } = input;
  const context = { recipe, recipeDigest };
  const quick = proxyActivities<Activities>(shortWork(heartbeatTimeoutMs));
  const long = proxyActivities<Activities>(longWork(heartbeatTimeoutMs));
  const { workflowId, runId, startTime } = workflowInfo();
  const run = { workflowId, runId, startedAt: startTime.toISOString() };
  const mergeWorkflowId = `${workflowId}/merge`;

  const runner = new StageRunner();
  let inputs: ResolvedInputs | undefined;
  let plan: PlanReference | undefined;
  let warnings: readonly string[] = [];
  setHandler(statusQuery, () => ({
    name: recipe.name,
    version: recipe.version,
    recipeDigest,
    stages: runner.stages,
    ...(runner.waiting === undefined ? {} : { waiting: runner.waiting }),
    ...(inputs === undefined ? {} : { inputs }),
    ...(plan === undefined ? {} : { plan, mergeWorkflowId }),
    warnings,
  }));

  const resolved = await runner.run('resolve', () => long.resolveInputs(context));
  inputs = resolved;
  const adapters = [resolved.adapter, ...(resolved.otherAdapters ?? [])];
  const adapterRoots = await runner.run('fetch adapter', () =>
    allEnded(adapters.map((adapter) => long.fetchInput(adapter))),
  );
  const preflight = await runner.run('preflight', () =>
    quick.preflight(context, resolved, ...adapterRoots),
  );
  warnings = preflight.warnings;
  const baseRoot = await runner.run('fetch base', () => long.fetchInput(resolved.base));
  const roots: Roots = {
    base: baseRoot,
    ...Object.fromEntries(recipe.adapters.map(({ id }, index) => [id, adapterRoots[index] ?? ''])),
  };
  const planned = await runner.run('plan', () => long.plan(context, resolved, roots));
  plan = planned;
  warnings = planned.warnings;

  const shards = await runner.run('merge', () => merge(input, planned, roots, mergeWorkflowId));
  const planDigest = planned.digest;
  const sealed = await runner.run('seal', () =>
    quick.seal({ ...context, inputs: resolved, planDigest, roots, shards }),
  );
  const verification = await runner.run('verify', () => long.verify(planDigest, roots));
  const release = { ...context, inputs: resolved, planDigest, sealed, verification, run };
  const publications = await runner.run('publish', () =>
    allEnded(recipe.publish.map((_, target) => long.publish({ ...release, target }))),
  );
  const report = await runner.run('report', () => quick.report({ ...release, publications }));
  return {
    artefact: resolved.artefact,
    directory: sealed.directory,
    planDigest,
    manifestDigest: sealed.manifestDigest,
    publications,
    report,
    verification,
    warnings,
  };
}

/** All results, or the first failure once nothing runs any more that a resumed stage would meet. */
async function allEnded<T>(works: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(works);
  return Promise.all(works);
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
