import { WeldlineError } from '../engine/errors.ts';
import { retryUpdate, STAGES, type Stage } from '../workflows/messages.ts';
import type { Output } from './output.ts';
import { withSession } from './release.ts';
import { findRelease } from './release-handle.ts';
import { requireRunning, updateRelease } from './update-release.ts';
import { watchRelease } from './watch-release.ts';

/**
 * `weldline retry`: begins a stage again, at once: one that waits for mending, or whose work is tried
 * again and again. Then it is followed.
 */
export function runRetry(
  stageName: string,
  wanted: string | undefined,
  output: Output,
): Promise<number> {
  const stage = readStage(stageName);
  return withSession(output, async (session, signal) => {
    const { handle, ...description } = await findRelease(session.client, wanted);
    requireRunning({ ...description });
    if (session.embedded) await session.startWorkers();
    const request = { args: [stage] as [Stage], refused: 'release.refused' as const };
    await updateRelease(session.client, handle, retryUpdate, request);
    return watchRelease(session, handle, output, signal);
  });
}

/** Names of two words may be written with a hyphen. */
function readStage(name: string): Stage {
  const stage = STAGES.find((each) => each === name || each.replace(' ', '-') === name);
  if (stage !== undefined) return stage;
  throw new WeldlineError(
    'cli.usage',
    `There is no stage "${name}". The stages are ` +
      `${STAGES.map((each) => each.replace(' ', '-')).join(', ')}.`,
  );
}
