import type { Output } from './output.ts';
import { STOPPED_WATCHING, withSession } from './release.ts';
import { findRelease } from './release-handle.ts';
import type { TemporalSession } from './temporal-session.ts';
import { isRunning, type WatchOptions, watchRelease } from './watch-release.ts';

/** `weldline watch`: follows a release that others work on. */
export function runWatch(
  wanted: string | undefined,
  options: WatchOptions,
  output: Output,
): Promise<number> {
  const work = async (session: TemporalSession, signal: AbortSignal): Promise<number> => {
    const { handle, ...description } = await findRelease(session.client, wanted);
    if (session.embedded && !session.mayHaveWorkers()) {
      if (isRunning({ ...description })) {
        const { workflowId: id } = handle;
        output.note(`No weldline process works on it. To go on with it: weldline resume ${id}`);
      }
      // To answer what is asked, for as long as it is watched.
      await session.startWorkers({ workflowsOnly: true });
    }
    return watchRelease(session, handle, output, signal, options);
  };
  return withSession(output, work, STOPPED_WATCHING);
}
