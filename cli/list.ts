import { EXIT } from './exit-codes.ts';
import { formatTable } from './format.ts';
import type { Output } from './output.ts';
import { withSession } from './release.ts';
import { RELEASES } from './release-handle.ts';

/** `weldline list`: all releases the server knows, the newest first. */
export function runList(output: Output): Promise<number> {
  return withSession(output, async ({ client }) => {
    const releases: { id: string; state: string; startedAt: string; endedAt?: string }[] = [];
    for await (const execution of client.workflow.list({ query: RELEASES })) {
      releases.push({
        id: execution.workflowId,
        state: execution.status.name.toLowerCase(),
        startedAt: execution.startTime.toISOString(),
        ...(execution.closeTime === undefined
          ? {}
          : { endedAt: execution.closeTime.toISOString() }),
      });
    }
    if (releases.length === 0) output.line('No releases yet. Start one: weldline release <recipe>');
    else output.line(formatTable(releases.map((r) => [r.id, r.state, r.startedAt])));
    output.result(releases);
    return EXIT.ok;
  });
}
