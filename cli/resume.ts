import { readEnvironment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';
import { type ReleaseInput, resumeSignal } from '../workflows/messages.ts';
import type { Output } from './output.ts';
import { decodePayload } from './payloads.ts';
import { inputFor, isMendable, startRelease, withSession } from './release.ts';
import { awaitStatus, findRelease, type ReleaseHandle } from './release-handle.ts';
import { readStoredRun, storedRuns } from './stored-run.ts';
import type { TemporalSession } from './temporal-session.ts';
import { isRunning, watchRelease } from './watch-release.ts';

/**
 * `weldline resume`: goes on with a release that waits, is paused, was left behind by a process that
 * died, failed and was mended, or was forgotten by its server.
 */
export function runResume(wanted: string | undefined, output: Output): Promise<number> {
  return withSession(output, async (session, signal) => {
    const found = await findRelease(session.client, wanted).catch((error: unknown) => {
      if (error instanceof WeldlineError && error.code === 'release.not-found') return error;
      throw error;
    });
    if (found instanceof WeldlineError) {
      const input = await forgottenInput(session, wanted, found, output);
      if (session.embedded) await session.startWorkers();
      return watchRelease(session, await startRelease(session, input), output, signal);
    }
    const { handle: last, ...description } = found;
    if (session.embedded) await session.startWorkers();
    let handle: ReleaseHandle = last;
    if (isRunning({ ...description })) {
      const { waiting, paused } = await awaitStatus(session, last);
      if (paused !== undefined || isMendable(waiting)) await last.signal(resumeSignal);
    } else if (description.status.name === 'COMPLETED') {
      output.note(`${last.workflowId} is finished.`);
    } else {
      handle = await startRelease(session, await inputOf(session, last));
    }
    return watchRelease(session, handle, output, signal);
  });
}

/** What a run was started with: the recipe file may have changed or gone since. */
async function inputOf(session: TemporalSession, handle: ReleaseHandle): Promise<ReleaseInput> {
  const { events } = await handle.fetchHistory();
  const payload = events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads?.[0];
  const input = await decodePayload<ReleaseInput>(session.client, payload);
  if (input !== undefined) return input;
  const stored = await readStoredRun(readEnvironment().home, handle.workflowId);
  if (stored !== undefined) return inputFor(session, stored);
  throw new WeldlineError(
    'release.not-found',
    `The history of ${handle.workflowId} does not hold its recipe any more. Run weldline ` +
      `release <recipe> again; finished work is found.`,
  );
}

/** The workspace outlives the server's memory: a lost database, a retention that has passed. */
async function forgottenInput(
  session: TemporalSession,
  wanted: string | undefined,
  notFound: WeldlineError,
  output: Output,
): Promise<ReleaseInput> {
  const { home } = readEnvironment();
  const stored = wanted === undefined ? undefined : await readStoredRun(home, wanted);
  if (stored !== undefined) {
    output.note(
      `The server does not know ${wanted}: it is begun again from what ${home} keeps of it; finished ` +
        'work is found.',
    );
    return inputFor(session, stored);
  }
  const kept = (await storedRuns(home)).slice(0, KEPT_SHOWN_MAX);
  if (kept.length === 0) throw notFound;
  throw new WeldlineError(
    'release.not-found',
    `${notFound.message} Beside those ${home} keeps what these were started with: ` +
      `${kept.join(', ')} (weldline resume NAME).`,
  );
}

const KEPT_SHOWN_MAX = 5;
