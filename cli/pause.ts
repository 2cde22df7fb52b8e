import { setTimeout } from 'node:timers/promises';
import { pauseUpdate } from '../workflows/messages.ts';
import { EXIT } from './exit-codes.ts';
import type { Output } from './output.ts';
import { STOPPED_WATCHING, withSession } from './release.ts';
import { awaitStatus, findRelease, type ReleaseHandle } from './release-handle.ts';
import type { TemporalSession } from './temporal-session.ts';
import { requireRunning, updateRelease } from './update-release.ts';
import { userName } from './user-name.ts';

export interface PauseCommand {
  readonly by?: string;
}

/** Work hears of it with its next heartbeat; a worker that is gone does not. */
const STOP_TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 400;

/** `weldline pause`: stops all work on a release until it is resumed; what is journalled is kept. */
export function runPause(
  wanted: string | undefined,
  options: PauseCommand,
  output: Output,
): Promise<number> {
  const work = async (session: TemporalSession, signal: AbortSignal): Promise<number> => {
    const { handle, ...description } = await findRelease(session.client, wanted);
    requireRunning({ ...description });
    // Somebody has to pass it on; what it stops must not begin here first.
    if (session.embedded) await session.startWorkers({ workflowsOnly: true });
    const by = options.by ?? userName();
    const request = { args: [{ by }] as [{ by: string }], refused: 'release.refused' as const };
    await updateRelease(session.client, handle, pauseUpdate, request);
    const id = handle.workflowId;
    const hasStopped = await awaitStop(session, handle, signal);
    output.line(`Paused ${id}. To go on: weldline resume ${id}`);
    if (!hasStopped)
      output.line('Its work ends as soon as its worker hears of it, or is given up.');
    output.result({ id, paused: { by }, stopped: hasStopped });
    return EXIT.ok;
  };
  return withSession(output, work, STOPPED_WATCHING);
}

async function awaitStop(
  session: TemporalSession,
  handle: ReleaseHandle,
  signal: AbortSignal,
): Promise<boolean> {
  const deadline = Date.now() + STOP_TIMEOUT_MS;
  while (Date.now() < deadline) {
    signal.throwIfAborted();
    const { stages } = await awaitStatus(session, handle);
    if (stages.every(({ state }) => state !== 'running')) return true;
    await setTimeout(POLL_INTERVAL_MS);
  }
  return false;
}
