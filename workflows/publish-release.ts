import { ApplicationFailure, patched } from '@temporalio/workflow';
import type {
  Approval,
  Judged,
  MovedAlias,
  QualityFacts,
  ReleaseParts,
} from '../activities/quality-types.ts';
import type { Place, Publication, Report } from '../activities/types.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import { allEnded } from './all-ended.ts';
import type { Approvals } from './approvals.ts';
import type { ReleaseInput, Waiting } from './messages.ts';
import { longWork, shortWork } from './options.ts';
import { activitiesAt } from './placement.ts';
import type { StageRunner } from './stage-runner.ts';

/** A recipe may ask for a person's word where it asks for nothing else. */
const NOTHING: QualityFacts = {
  plan: { conversions: [], candidates: [], warnings: [] },
  converted: [],
  evaluated: [],
};

export interface Published {
  readonly publications: readonly Publication[];
  readonly report: Report;
  readonly approval?: Approval | undefined;
  readonly aliases: readonly MovedAlias[];
  readonly warnings: readonly string[];
}

interface PartAtTarget {
  /** Index of the target in the recipe. */
  readonly target: number;
  /** Absent for the merged checkpoint, as in recipes without conversions. */
  readonly part?: string | undefined;
}

/** Sends parts to all targets that take them: first to those that hold files, then to registries. */
async function publishParts(
  { heartbeatTimeoutMs }: ReleaseInput,
  place: Place,
  release: ReleaseParts,
  parts: readonly (string | undefined)[],
): Promise<(PartAtTarget & { readonly publication: Publication })[]> {
  const { publish } = activitiesAt(place, 'control', longWork(heartbeatTimeoutMs));
  const wanted = parts.flatMap((part) =>
    release.recipe.publish.flatMap((target, index) =>
      isWanted(target, part, release) ? [{ part, index, target }] : [],
    ),
  );
  const published: (PartAtTarget & { readonly publication: Publication })[] = [];
  const send = async (some: typeof wanted): Promise<void> => {
    const earlier = [...published];
    const done = await inBatches(some, ({ part, index }) => {
      const publishedAt = earlier
        .filter((each) => each.part === part)
        .map(({ publication }) => publication);
      const summary = summaryOf(release.recipe.publish[index], part);
      return publish.executeWithOptions({ summary }, [
        {
          ...release,
          target: index,
          ...(part === undefined ? {} : { part }),
          ...(publishedAt.length === 0 ? {} : { publishedAt }),
        },
      ]);
    });
    for (const [position, publication] of done.entries()) {
      const { part, index = 0 } = some[position] ?? {};
      published.push({ target: index, ...(part === undefined ? {} : { part }), publication });
    }
  };
  await send(wanted.filter(({ target }) => !('mlflow' in target)));
  const pointing = wanted.filter(({ target }) => 'mlflow' in target);
  if (pointing.length > 0) await send(pointing);
  return published;
}

/**
 * Each of these is told all of the release, up to 100 kB of it, and Temporal takes at most 4 MB of what
 * a workflow decides at once: above that it would never go on.
 */
const AT_ONCE_MAX = 16;

/** All results, or the first failure once the work on all that can be done is done. */
async function inBatches<In, Out>(
  all: readonly In[],
  work: (one: In) => Promise<Out>,
): Promise<Out[]> {
  if (all.length <= AT_ONCE_MAX || !patched('publish-in-batches')) return allEnded(all.map(work));
  const works: Promise<Out>[] = [];
  for (let at = 0; at < all.length; at += AT_ONCE_MAX) {
    const batch = all.slice(at, at + AT_ONCE_MAX).map(work);
    works.push(...batch);
    await Promise.allSettled(batch);
  }
  return Promise.all(works);
}

/** Which part goes to which target, for people. */
function summaryOf(target: PublishTarget | undefined, part = 'merged'): string {
  if (target === undefined) return part;
  if ('directory' in target) return `${part} to ${target.directory.path}`;
  if ('hub' in target) return `${part} to hf://${target.hub.repo}`;
  if ('s3' in target) return `${part} to s3://${target.s3.bucket}/${target.s3.prefix ?? ''}`;
  if ('oci' in target) return `${part} to oci://${target.oci.repository}`;
  if ('ollama' in target) return `${part} to ollama ${target.ollama.model}`;
  return `${part} to mlflow ${target.mlflow.model}`;
}

/** What a recipe sends where: to each target what it names, or all that the target can hold. */
function isWanted(target: PublishTarget, part: string | undefined, release: ReleaseParts): boolean {
  if (target.artefacts !== undefined && !target.artefacts.includes(part ?? 'merged')) return false;
  if ('mlflow' in target) {
    const { source } = target.mlflow;
    const holders = source === undefined ? (['hub', 's3', 'oci'] as const) : [source];
    return release.recipe.publish.some(
      (other) => holders.some((kind) => kind in other) && isWanted(other, part, release),
    );
  }
  if (!('ollama' in target)) return true;
  return release.quality?.plan.conversions.find(({ id }) => id === part)?.kind === 'gguf';
}

/**
 * Publishes what the gate let pass, and what it refused once a person says so. Every part goes on
 * its own: a conversion that failed does not hold back the checkpoint it was made of.
 *
 * @throws ApplicationFailure `gate.failed` where the recipe says that a refusal ends the run
 */
export async function publishRelease(
  input: ReleaseInput,
  place: Place,
  release: ReleaseParts,
  judged: Judged | undefined,
  runner: StageRunner,
  approvals: Approvals,
): Promise<Published> {
  const { recipe, heartbeatTimeoutMs } = input;
  const quick = activitiesAt(place, 'control', shortWork(heartbeatTimeoutMs));
  const publications: Publication[] = [];
  const aliases: MovedAlias[] = [];
  const warnings: string[] = [];
  const facts = (): ReleaseParts => ({
    ...release,
    ...(approvals.given && {
      quality: { ...(release.quality ?? NOTHING), approval: approvals.given },
    }),
    stages: runner.stages,
  });
  const isOverridden = (): boolean => (approvals.given?.override ?? '') !== '';
  const publish = async (parts: readonly (string | undefined)[]) => {
    const published = await publishParts(input, place, facts(), parts);
    publications.push(...published.map(({ publication }) => publication));
    return published;
  };
  // Once each: where it was moved to while the stage waited, it stays.
  const moves = new Set<string>();
  const moveAliases = async (published: Awaited<ReturnType<typeof publish>>): Promise<void> => {
    for (const each of published) {
      const move = `${each.target} ${each.part}`;
      if (moves.has(move) || !recipe.publish[each.target]?.aliases?.length) continue;
      const summary = `aliases: ${summaryOf(recipe.publish[each.target], each.part)}`;
      const moved = await quick.moveAliases.executeWithOptions({ summary }, [
        {
          recipe,
          release: release.inputs.artefact,
          target: each.target,
          part: each.part,
          startedAt: release.run.startedAt,
        },
      ]);
      moves.add(move);
      aliases.push(...moved.moved);
      warnings.push(...moved.warnings);
    }
  };
  const report = (): Promise<Report> => quick.report({ ...facts(), publications });

  const failed = judged?.failed ?? [];
  if (recipe.approval === 'required') {
    await runner.run('approve', async () => {
      const { html = '' } = await report();
      await approvals.wait(approvalWanted(failed, html));
    });
  }
  const passed = release.quality === undefined ? [undefined] : partsOf(release, judged);
  await runner.run('publish', async () => {
    publications.length = 0;
    await moveAliases(await publish(passed));
    if (failed.length === 0) return;
    if (!isOverridden() && recipe.evaluation?.onFailure !== 'stop') {
      const { html = '' } = await report();
      await approvals.wait(overrideWanted(failed, passed.length, html));
    }
    // What a person let pass against the gate is nobody's default: it is promoted by hand.
    if (isOverridden()) await publish(failed.map(({ id }) => id));
  });
  const final = await runner.run('report', report);
  if (failed.length > 0 && !isOverridden()) {
    throw ApplicationFailure.create({
      type: 'gate.failed',
      message: `${refusals(failed)}\nThe report has the figures: ${final.html ?? final.markdown}`,
      nonRetryable: true,
    });
  }
  return { publications, report: final, approval: approvals.given, aliases, warnings };
}

/** What is published without further words: what passed, or all where nothing was judged. */
function partsOf({ quality }: ReleaseParts, judged: Judged | undefined): readonly string[] {
  if (judged !== undefined) return judged.passed;
  const wanted = quality?.plan.conversions.filter((step) => step.kind !== 'gguf' || step.wanted);
  return ['merged', ...(wanted ?? []).map(({ id }) => id)];
}

function refusals(failed: Judged['failed']): string {
  const lines = failed.map(({ id, message }) => `  ${id}: ${message.replaceAll('\n', '\n    ')}`);
  return `The gate refused ${failed.map(({ id }) => id).join(', ')}:\n${lines.join('\n')}`;
}

function approvalWanted(failed: Judged['failed'], report: string): Waiting {
  const ask = `Read ${report}, then approve it or cancel it.`;
  if (failed.length === 0) {
    const message = `The recipe asks for a person's approval. ${ask}`;
    return { stage: 'approve', code: 'release.approval-required', message, needs: 'approval' };
  }
  const message =
    `The recipe asks for a person's approval. ${refusals(failed)}\n${ask} With a reason ` +
    '(--override) what was refused is published too.';
  return { stage: 'approve', code: 'release.approval-required', message, needs: 'approval' };
}

function overrideWanted(failed: Judged['failed'], passed: number, report: string): Waiting {
  const published = passed === 0 ? 'Nothing is published.' : 'What passed is published.';
  const message =
    `${refusals(failed)}\n${published} Read ${report}, then publish what was refused all the same ` +
    '(--override "reason") or cancel the release.';
  return { stage: 'publish', code: 'gate.failed', message, needs: 'override' };
}
