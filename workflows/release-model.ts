import {
  CancellationScope,
  isCancellation,
  log,
  patched,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type {
  Judged,
  MergedContext,
  QualityPlan,
  ReleaseParts,
} from '../activities/quality-types.ts';
import type {
  CleanedUp,
  CleanUpInput,
  Place,
  PlanReference,
  ResolvedInputs,
  Roots,
} from '../activities/types.ts';
import type { Recipe } from '../config/recipe.ts';
import type { Verification } from '../engine/verify/verify-merge.ts';
import { allEnded } from './all-ended.ts';
import { Approvals } from './approvals.ts';
import { assessMerge } from './assess-merge.ts';
import { mergeInChild, mergeWorkflowId } from './merge-in-child.ts';
import {
  type ReleaseInput,
  type ReleaseResult,
  STAGES,
  type Stage,
  statusQuery,
} from './messages.ts';
import { releaseEnded } from './metrics.ts';
import { longWork, shortWork } from './options.ts';
import { activitiesAt, findPlace, HOST_GONE } from './placement.ts';
import { publishRelease } from './publish-release.ts';
import { codeOf, StageRunner } from './stage-runner.ts';

/** What a release knows so far; queries show it. */
interface Progress {
  place?: Place;
  inputs?: ResolvedInputs;
  plan?: PlanReference;
  judged?: Judged;
  cleanedUp?: CleanedUp;
  movedFrom?: readonly string[];
  warnings: readonly string[];
}

/** One release, from a recipe to a published, verified checkpoint and what is made of it. */
export async function releaseModel(input: ReleaseInput): Promise<ReleaseResult> {
  const { recipe, recipeDigest } = input;
  const runner = new StageRunner(stagesOf(recipe));
  const approvals = new Approvals(runner);
  const progress: Progress = { warnings: [] };
  setHandler(statusQuery, () => {
    const { plan, place, warnings, ...known } = progress;
    const { waitings, paused } = runner;
    return {
      name: recipe.name,
      version: recipe.version,
      recipeDigest,
      stages: runner.stages,
      ...(waitings[0] === undefined ? {} : { waiting: waitings[0], waitings }),
      ...(paused === undefined ? {} : { paused }),
      ...(place?.host === undefined ? {} : { host: place.host }),
      ...known,
      ...(plan === undefined ? {} : { plan, mergeWorkflowId: mergeWorkflowId() }),
      warnings,
    };
  });
  try {
    for (;;) {
      progress.place = await findPlace(input);
      try {
        const result = await makeRelease(input, progress.place, runner, approvals, progress);
        releaseEnded('released');
        return result;
      } catch (error) {
        // Inputs stay pinned; all else is done again on a host that is there.
        if (codeOf(error) !== HOST_GONE) throw error;
        log.warn('The host of the release is gone: it moves to another', { ...progress.place });
        const { movedFrom = [], place } = progress;
        progress.movedFrom = [...movedFrom, place.host ?? ''];
        approvals.forget();
        runner.beginAgain(progress.inputs === undefined ? [] : ['resolve']);
      }
    }
  } catch (error) {
    releaseEnded(isCancellation(error) ? 'cancelled' : 'failed');
    if (isCancellation(error) && patched('clean-up')) {
      const { inputs, plan, place = { queues: {} } } = progress;
      const known = { ...(inputs && { inputs }), ...(plan && { plan }) };
      progress.cleanedUp = await cleanUp(place, { recipe, recipeDigest, ...known });
    }
    throw error;
  }
}

const CLEAN_UP_TIMEOUT_MS = 10 * 60_000;

/** A release that is cancelled leaves its journals and nothing half done; trying is enough. */
async function cleanUp(place: Place, input: CleanUpInput): Promise<CleanedUp> {
  const { queues, presence } = place;
  // A host that is gone cleans nothing up, and nobody waits for it as for one that has work to do.
  const activities = activitiesAt({ queues }, 'control', {
    startToCloseTimeout: '5m',
    scheduleToCloseTimeout: CLEAN_UP_TIMEOUT_MS,
    ...(presence && {
      scheduleToStartTimeout: Math.min(2 * presence.timeoutMs, CLEAN_UP_TIMEOUT_MS),
    }),
    retry: { maximumAttempts: 3 },
    summary: 'what a cancelled release leaves',
  });
  try {
    return await CancellationScope.nonCancellable(() => activities.cleanUp(input));
  } catch (error) {
    log.warn('What a cancelled release left could not all be removed', { error });
    return { removed: [] };
  }
}

async function makeRelease(
  input: ReleaseInput,
  place: Place,
  runner: StageRunner,
  approvals: Approvals,
  progress: Progress,
): Promise<ReleaseResult> {
  const { workflowId, runId, startTime } = workflowInfo();
  const run = { workflowId, runId, startedAt: startTime.toISOString() };
  const { merged, verification, quality } = await makeMerge(input, place, runner, progress);
  let release: ReleaseParts = { ...merged, verification, run };
  if (quality !== undefined) {
    const { judged, ...assessed } = await assessMerge(input, place, merged, quality, runner);
    const decision = judged?.decision;
    release = { ...release, quality: { plan: quality, ...assessed, decision } };
    if (judged !== undefined) {
      progress.judged = judged;
      progress.warnings = [...progress.warnings, ...judged.warnings];
    }
  }
  const { judged } = progress;
  const published = await publishRelease(input, place, release, judged, runner, approvals);
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
    ...(judged && { judged }),
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
  input: ReleaseInput,
  place: Place,
  runner: StageRunner,
  progress: Progress,
): Promise<Made> {
  const { recipe, recipeDigest, heartbeatTimeoutMs } = input;
  const context = { recipe, recipeDigest };
  const quick = activitiesAt(place, 'control', shortWork(heartbeatTimeoutMs));
  const long = activitiesAt(place, 'control', longWork(heartbeatTimeoutMs));

  const inputs =
    progress.inputs ?? (await runner.run('resolve', () => long.resolveInputs(context)));
  progress.inputs = inputs;
  const adapters = [inputs.adapter, ...(inputs.otherAdapters ?? [])];
  const adapterRoots = await runner.run('fetch adapter', () =>
    allEnded(
      adapters.map((adapter, index) =>
        long.fetchInput.executeWithOptions({ summary: recipe.adapters[index]?.model ?? '' }, [
          adapter,
        ]),
      ),
    ),
  );
  let quality: QualityPlan | undefined;
  const preflight = await runner.run('preflight', async () => {
    const checked = await long.preflight(context, inputs, ...adapterRoots);
    if (recipe.conversions !== undefined || recipe.evaluation !== undefined) {
      quality = await long.planQuality(context, inputs, ...adapterRoots);
    }
    return checked;
  });
  const ofQuality = quality?.warnings ?? [];
  progress.warnings = [...preflight.warnings, ...ofQuality];
  const baseRoot = await runner.run('fetch base', () =>
    long.fetchInput.executeWithOptions({ summary: recipe.base.model }, [inputs.base]),
  );
  const roots: Roots = {
    base: baseRoot,
    ...Object.fromEntries(recipe.adapters.map(({ id }, index) => [id, adapterRoots[index] ?? ''])),
  };
  const plan = await runner.run('plan', () => long.plan(context, inputs, roots));
  progress.plan = plan;
  progress.warnings = [...plan.warnings, ...ofQuality];

  const shards = await runner.run('merge', () => mergeInChild(input, place, plan, roots));
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
