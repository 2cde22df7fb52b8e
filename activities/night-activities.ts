import { Context } from '@temporalio/activity';
import type { Recipe } from '../config/recipe.ts';
import { withVersion } from '../config/version-rule.ts';
import { createPublisher } from '../publishers/create-publisher.ts';
import { artefactId } from './artefact-contents.ts';
import { plannedTargets } from './check-targets.ts';
import type { Dependencies } from './dependencies.ts';
import { withHeartbeat } from './heartbeat.ts';
import { createInputActivities } from './input-activities.ts';
import type { Night, NightInput, PublishedRelease } from './night-types.ts';
import { digestInputs, readLedger } from './release-ledger.ts';

/** What a release that nobody watches is doing. */
export interface Whereabouts {
  /** For people: what it waits for, or what it was at. */
  readonly doing: string;
}

/** How long a query may wait for a worker that is there. */
const QUERY_TIMEOUT_MS = 10_000;

/** What a nightly release does before a release begins, and when its night is over. */
export function createNightActivities(dependencies: Dependencies) {
  const { home, access, publishing } = dependencies;
  const { resolveInputs } = createInputActivities(dependencies);
  return {
    /** Pins the inputs as they are now, and says whether they are those of the last release. */
    async lookAtNight(input: NightInput): Promise<Night> {
      const { nominalTime, timeZone, recipeDigest } = input;
      const recipe = withVersion(input.recipe, new Date(nominalTime), timeZone);
      const resolved = await resolveInputs({ recipe, recipeDigest });
      return withHeartbeat('resolve', async (_report, signal) => {
        const inputs = await digestInputs(access, recipe, resolved, signal);
        const last = laterOf(await readLedger(home, recipe.name), input.last);
        const { version } = recipe;
        if (last === undefined) return { version, inputs, reason: 'nothing was released before' };
        const changed = changes(last.inputs, inputs);
        if (changed.length > 0)
          return { version, inputs, reason: `changed: ${changed.join(', ')}` };
        const missing = await findMissing(recipe, last, signal);
        if (missing !== undefined) return { version, inputs, reason: missing };
        return { version, inputs, unchangedSince: last, reason: 'nothing has changed' };
      });
    },

    /** What a release is at, asked by the workflow that began it. */
    async askWhereabouts(workflowId: string): Promise<Whereabouts> {
      const { client } = Context.current();
      const handle = client.workflow.getHandle(workflowId);
      const deadline = Date.now() + QUERY_TIMEOUT_MS;
      const status = await client.withDeadline(deadline, () => handle.query<Status>('status'));
      const { waiting, stages, paused } = status;
      if (paused !== undefined) return { doing: `it was paused by ${paused.by}` };
      if (waiting !== undefined) {
        return { doing: `it waited (${waiting.stage}, ${waiting.code}): ${waiting.message}` };
      }
      const running = stages.filter(({ state }) => state === 'running').map(({ stage }) => stage);
      return { doing: `it was still at ${running.join(', ') || 'its beginning'}` };
    },
  };

  /** Where the last release is no longer, for people. */
  async function findMissing(
    recipe: Recipe,
    { artefact, version }: PublishedRelease,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    for (const { target, parts } of plannedTargets(recipe)) {
      const publisher = await createPublisher(target, publishing);
      for (const part of parts) {
        const found = await publisher.find(artefactId(artefact, part), signal);
        if (found === undefined || found.isPruned) {
          return `${version} is no longer at ${publisher.name} (${part})`;
        }
      }
    }
    return undefined;
  }
}

/** Of `ReleaseStatus`, what is told of a release. */
interface Status {
  readonly stages: readonly { readonly stage: string; readonly state: string }[];
  readonly waiting?: { readonly stage: string; readonly code: string; readonly message: string };
  readonly paused?: { readonly by: string };
}

function laterOf(
  one: PublishedRelease | undefined,
  other: PublishedRelease | undefined,
): PublishedRelease | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Date.parse(one.startedAt) >= Date.parse(other.startedAt) ? one : other;
}

function changes(
  before: PublishedRelease['inputs'],
  now: PublishedRelease['inputs'],
): readonly string[] {
  const names = new Set([...Object.keys(now), ...Object.keys(before)]);
  return [...names].filter((name) => before[name] !== now[name]);
}
