import type { ReleaseStatus } from '../workflows/messages.ts';
import { EXIT } from './exit-codes.ts';
import { formatBytes, formatDuration, formatTable } from './format.ts';
import type { Output } from './output.ts';
import { withSession } from './release.ts';
import { findRelease, type LiveProgress, liveProgress, queryStatus } from './release-handle.ts';
import { howToGoOn, toReleaseError } from './watch-release.ts';

/** `weldline status`: how far a release is, what it waits for, why it failed. */
export function runStatus(wanted: string | undefined, output: Output): Promise<number> {
  return withSession(output, async (session) => {
    const { handle, ...description } = await findRelease(session.client, wanted);
    const state = description.status.name.toLowerCase();
    const status = await queryStatus(session, handle);
    const running = description.status.name === 'RUNNING';
    const live = running ? await liveProgress(session, handle, status) : undefined;
    const failure = running ? undefined : await failureOf(handle.result());
    const shown = status.waiting === undefined || !running ? state : 'waiting';
    output.line(`${handle.workflowId}  ${shown}`);
    output.line(stageTable(status));
    if (live !== undefined) output.line(liveLine(live));
    if (running && status.waiting !== undefined) {
      output.line(`waits (${status.waiting.stage}): ${status.waiting.message}`);
      output.line(howToGoOn(handle.workflowId, status.waiting));
    } else if (running && session.embedded && live === undefined) {
      output.line(`if no weldline process works on it: weldline resume ${handle.workflowId}`);
    }
    if (failure !== undefined) output.line(`failed: ${failure}`);
    for (const warning of status.warnings) output.line(`warning: ${warning}`);
    output.result({ id: handle.workflowId, state: shown, ...status, progress: live, failure });
    return EXIT.ok;
  });
}

function stageTable(status: ReleaseStatus): string {
  const rows = status.stages.map(({ stage, state, startedAtMs, finishedAtMs }) => {
    const done = startedAtMs !== undefined && finishedAtMs !== undefined;
    return ['', stage, state, done ? formatDuration(finishedAtMs - startedAtMs) : ''];
  });
  return formatTable(rows);
}

function liveLine({ item, bytesDone, bytesTotal, fraction }: LiveProgress): string {
  if (fraction !== undefined) return `  now: ${Math.floor(100 * fraction)}%  ${item}`;
  if (bytesDone === 0 && item !== '') return `  now: ${item}`;
  const total = bytesTotal > 0 ? ` of ${formatBytes(bytesTotal)}` : '';
  return `  now: ${formatBytes(bytesDone)}${total}  ${item}`.trimEnd();
}

async function failureOf(result: Promise<unknown>): Promise<string | undefined> {
  try {
    await result;
    return undefined;
  } catch (error) {
    const known = toReleaseError(error);
    return known instanceof Error ? known.message : String(known);
  }
}
