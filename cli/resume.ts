import { WeldlineError } from '../engine/errors.ts';
import { type ReleaseInput, resumeSignal } from '../workflows/messages.ts';
import type { Output } from './output.ts';
import { isMendable, startRelease, withSession } from './release.ts';
import { awaitStatus, findRelease, type ReleaseHandle } from './release-handle.ts';
import { isRunning, watchRelease } from './watch-release.ts';

/**
 * `weldline resume`: goes on with a release that waits, was left behind by a process that died, or
 * failed and was mended.
 */
export function runResume(wanted: string | undefined, output: Output): Promise<number> {
  return withSession(output, async (session, signal) => {
    const { handle: found, ...description } = await findRelease(session.client, wanted);
    if (session.embedded) await session.startWorkers();
    let handle: ReleaseHandle = found;
    if (isRunning({ ...description })) {
      const { waiting } = await awaitStatus(session, found);
      if (isMendable(waiting)) await found.signal(resumeSignal);
    } else if (description.status.name === 'COMPLETED') {
      output.note(`${found.workflowId} is finished.`);
    } else {
      handle = await startRelease(session, await inputOf(found));
    }
    return watchRelease(session, handle, output, signal);
  });
}

/** What a run was started with: the recipe file may have changed or gone since. */
async function inputOf(handle: ReleaseHandle): Promise<ReleaseInput> {
  const { events } = await handle.fetchHistory();
  const data = events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads?.[0]?.data;
  if (data == null) {
    throw new WeldlineError(
      'release.not-found',
      `The history of ${handle.workflowId} does not hold its recipe any more. Run weldline ` +
        `release <recipe> again; finished work is found.`,
    );
  }
  return JSON.parse(Buffer.from(data).toString('utf8')) as ReleaseInput;
}
