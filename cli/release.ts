import { WorkflowIdConflictPolicy } from '@temporalio/client';
import type { ReleaseContext } from '../activities/types.ts';
import { readEnvironment } from '../config/environment.ts';
import { loadRecipe } from '../config/recipe.ts';
import { withVersion } from '../config/version-rule.ts';
import { WeldlineError } from '../engine/errors.ts';
import { TASK_QUEUE } from '../workers/task-queues.ts';
import { type ReleaseInput, resumeSignal, type Waiting } from '../workflows/messages.ts';
import { releaseId } from '../workflows/release-id.ts';
import type { releaseModel } from '../workflows/release-model.ts';
import { EXIT } from './exit-codes.ts';
import { Interrupted, interruptionSignal } from './interruption.ts';
import type { Output } from './output.ts';
import { awaitStatus, type ReleaseHandle } from './release-handle.ts';
import { openSession, type TemporalSession } from './temporal-session.ts';
import { watchRelease } from './watch-release.ts';

export interface ReleaseCommand {
  readonly detach?: boolean;
}

/**
 * Server and worker on one machine: a worker that is silent for this long is dead. Overlapping
 * attempts write the same bytes, so being wrong costs time only.
 */
const HEARTBEAT_TIMEOUT_EMBEDDED_MS = 10_000;

/** Long enough for a server to be restarted under running work. */
const HEARTBEAT_TIMEOUT_MS = 60_000;

/** Workers of a fleet that one release may use at the same time; each merges one shard. */
const PARALLEL_SHARDS = 8;

/** `weldline release`: starts a release, or joins the run of the same recipe, and follows it. */
export async function runRelease(
  recipePath: string,
  options: ReleaseCommand,
  output: Output,
): Promise<number> {
  const loaded = await loadRecipe(recipePath);
  const recipe = withVersion(loaded.recipe, new Date());
  return withSession(output, async (session, signal) => {
    if (options.detach === true && session.embedded) {
      throw new WeldlineError(
        'cli.usage',
        '--detach needs a Temporal server with workers (TEMPORAL_ADDRESS): with the embedded one ' +
          'this process does the work.',
      );
    }
    if (session.embedded) await session.startWorkers();
    const started = startRelease(
      session,
      inputFor(session, { recipe, recipeDigest: loaded.digest }),
    );
    if (options.detach !== true) return watchRelease(session, await started, output, signal);
    await started.catch((error: unknown) => {
      // Begun it is: whoever starts releases by scripts must not take that for a failure.
      if (!isUnanswered(error)) throw error;
      output.warn(error.message);
    });
    const id = releaseId(recipe.name, recipe.version);
    output.line(`Release ${id}`);
    output.result({ id });
    return EXIT.ok;
  });
}

/** What a release of a recipe is started with. */
export function inputFor({ embedded }: TemporalSession, context: ReleaseContext): ReleaseInput {
  return {
    ...context,
    parallelShards: PARALLEL_SHARDS,
    heartbeatTimeoutMs: embedded ? HEARTBEAT_TIMEOUT_EMBEDDED_MS : HEARTBEAT_TIMEOUT_MS,
  };
}

/** Starts a run, or joins the one under way; one that waits for a person is told to go on. */
export async function startRelease(
  session: TemporalSession,
  input: ReleaseInput,
): Promise<ReleaseHandle> {
  const { recipe, recipeDigest } = input;
  const handle = await session.client.workflow.start<typeof releaseModel>('releaseModel', {
    workflowId: releaseId(recipe.name, recipe.version),
    taskQueue: TASK_QUEUE,
    args: [input],
    workflowIdConflictPolicy: WorkflowIdConflictPolicy.USE_EXISTING,
    staticSummary: `${recipe.name} ${recipe.version}`,
  });
  const status = await awaitStatus(session, handle).catch((error: unknown) => {
    throw unanswered(handle.workflowId, error);
  });
  if (status.recipeDigest !== recipeDigest) {
    throw new WeldlineError(
      'release.already-running',
      `${handle.workflowId} is running with another recipe of the same name and version. Wait for ` +
        `it, cancel it (weldline cancel ${handle.workflowId}), or raise the version.`,
    );
  }
  if (isMendable(status.waiting)) await handle.signal(resumeSignal);
  return handle;
}

/** It is on the server by then: who reads of an error would not expect it to begin later. */
function unanswered(id: string, error: unknown): unknown {
  if (!isUnanswered(error)) return error;
  return new WeldlineError(
    error.code,
    `${id} is on the server, but no worker answers for it. It begins when one does: start one with ` +
      'weldline worker, or make the version of those that run the current one (docs/scaling.md).',
    { cause: error },
  );
}

function isUnanswered(error: unknown): error is WeldlineError {
  return error instanceof WeldlineError && error.code === 'temporal.worker-failed';
}

export const STOPPED_WATCHING =
  'Stopped watching; the release goes on. Look at it with weldline status.';
const STOPPED_WORKING = 'Stopped. The same command, or weldline resume, goes on where it stopped.';

/** Whether a release waits for something that may be mended by now, not for a person's word. */
export function isMendable(waiting: Waiting | undefined): boolean {
  return waiting !== undefined && (waiting.needs ?? 'mending') === 'mending';
}

/**
 * Opens a session, runs `work`, and closes it whatever happens.
 * @param stopped what a person is told who stops it, where that ends no work
 */
export async function withSession(
  output: Output,
  work: (session: TemporalSession, signal: AbortSignal) => Promise<number>,
  stopped?: string,
): Promise<number> {
  const signal = interruptionSignal();
  const environment = readEnvironment();
  let session: TemporalSession | undefined;
  try {
    session = await openSession({ environment, signal, note: (line) => output.note(line) });
    return await work(session, AbortSignal.any([signal, session.lost]));
  } catch (error) {
    if (!(signal.aborted && signal.reason instanceof Interrupted)) {
      throw session?.explain(error) ?? error;
    }
    output.note(stopped ?? (session?.embedded === false ? STOPPED_WATCHING : STOPPED_WORKING));
    return EXIT.interrupted;
  } finally {
    await session?.close();
  }
}
