import { setTimeout } from 'node:timers/promises';
import { EXIT } from './exit-codes.ts';
import type { Output } from './output.ts';
import { withSession } from './release.ts';
import { awaitStatus, findRelease } from './release-handle.ts';
import { cleanedUpLines } from './status.ts';
import type { TemporalSession } from './temporal-session.ts';
import { requireRunning } from './update-release.ts';
import { isRunning } from './watch-release.ts';

const POLL_INTERVAL_MS = 200;

/**
 * `weldline cancel`: ends a release. What is journalled stays and is found by a later run; what nobody
 * will go on with is removed.
 */
export function runCancel(wanted: string, output: Output): Promise<number> {
  const work = async (session: TemporalSession, signal: AbortSignal): Promise<number> => {
    const { handle, ...description } = await findRelease(session.client, wanted);
    requireRunning({ ...description });
    if (session.embedded) await session.startWorkers();
    await handle.cancel();
    output.note('Cancelling: work stops, and what nobody will go on with is removed.');
    // Polled, as a pending `result()` outlives its session.
    while (isRunning(await handle.describe())) {
      await setTimeout(POLL_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
      signal.throwIfAborted();
    }
    const id = handle.workflowId;
    const state = (await handle.describe()).status.name.toLowerCase();
    if (state !== 'cancelled') output.warn(`${id} ended before it heard of it (${state}).`);
    else output.line(`Cancelled ${id}`);
    const status = await awaitStatus(session, handle);
    for (const line of cleanedUpLines(status)) output.line(`  ${line}`);
    output.result({ id, cancelled: state === 'cancelled', ...status.cleanedUp });
    return EXIT.ok;
  };
  return withSession(
    output,
    work,
    'Stopped waiting. It is cancelled as soon as its workers have heard of it: weldline status.',
  );
}
