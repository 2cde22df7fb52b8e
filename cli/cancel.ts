import { WeldlineError } from '../engine/errors.ts';
import { EXIT } from './exit-codes.ts';
import type { Output } from './output.ts';
import { withSession } from './release.ts';
import { findRelease } from './release-handle.ts';
import { isRunning } from './watch-release.ts';

/** `weldline cancel`: ends a release. What is journalled stays and is found by a later run. */
export function runCancel(wanted: string, output: Output): Promise<number> {
  return withSession(output, async (session) => {
    const { handle, ...description } = await findRelease(session.client, wanted);
    if (!isRunning({ ...description })) {
      throw new WeldlineError(
        'release.not-found',
        `${handle.workflowId} is not running (${description.status.name.toLowerCase()}).`,
      );
    }
    if (session.embedded) await session.startWorkers();
    await handle.cancel();
    await handle.result().catch(() => undefined);
    output.line(`Cancelled ${handle.workflowId}`);
    output.result({ id: handle.workflowId, cancelled: true });
    return EXIT.ok;
  });
}
