import { WeldlineError } from '../engine/errors.ts';
import { approveUpdate } from '../workflows/messages.ts';
import type { Output } from './output.ts';
import { withSession } from './release.ts';
import { awaitStatus, findRelease } from './release-handle.ts';
import { updateRelease } from './update-release.ts';
import { userName } from './user-name.ts';
import { isRunning, watchRelease } from './watch-release.ts';

export interface ApproveCommand {
  /** Why what the gate refused is released all the same. */
  readonly override?: string;
  readonly by?: string;
}

/** `weldline approve`: a person's word, where a release waits for it; then it is followed. */
export function runApprove(
  wanted: string | undefined,
  options: ApproveCommand,
  output: Output,
): Promise<number> {
  if (options.override !== undefined && options.override.trim() === '') {
    throw new WeldlineError(
      'cli.usage',
      '--override needs a reason: it is recorded in the manifest of what is published.',
    );
  }
  return withSession(output, async (session, signal) => {
    const { handle, ...description } = await findRelease(session.client, wanted);
    if (!isRunning({ ...description })) {
      throw new WeldlineError(
        'release.not-waiting',
        `${handle.workflowId} is not running any more, so there is nothing to approve. See ` +
          `weldline status ${handle.workflowId}.`,
      );
    }
    if (session.embedded) await session.startWorkers();
    const { waiting } = await awaitStatus(session, handle);
    if (waiting?.needs !== 'approval' && waiting?.needs !== 'override') {
      const what =
        waiting === undefined
          ? 'does not wait for anything'
          : `waits for something else: ${waiting.message}`;
      throw new WeldlineError('release.not-waiting', `${handle.workflowId} ${what}`);
    }
    const by = options.by ?? userName();
    const { override } = options;
    const args: [{ by: string; override?: string }] = [
      { by, ...(override === undefined ? {} : { override: override.trim() }) },
    ];
    const refused = 'release.not-waiting';
    await updateRelease(session.client, handle, approveUpdate, { args, refused });
    output.note(`Approved by ${by}${override === undefined ? '' : `: ${override.trim()}`}`);
    return watchRelease(session, handle, output, signal);
  });
}
