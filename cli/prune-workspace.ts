import { existsSync } from 'node:fs';
import {
  findLeftovers,
  isRemoved,
  type Leftover,
  removeLeftover,
} from '../activities/workspace-leftovers.ts';
import { readEnvironment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';
import { locateServerFiles } from '../workers/server-files.ts';
import { EXIT } from './exit-codes.ts';
import { formatBytes, formatTable } from './format.ts';
import type { Output } from './output.ts';
import { tellBytes } from './tell-bytes.ts';

export interface PruneWorkspaceOptions {
  readonly home: string;
  /** What was written in the last so many days stays. */
  readonly keepDays: number;
  readonly isDryRun: boolean;
}

const DAY_MS = 86_400_000;

/**
 * `weldline prune --workspace`: removes old merges, conversions and distributions. Only while no
 * release runs, since one that waits for a person needs the files that it was judged by.
 */
export async function pruneWorkspace(
  options: PruneWorkspaceOptions,
  output: Output,
): Promise<number> {
  const { home, isDryRun } = options;
  // The embedded server of a home that has no database has never run a release.
  const isUnused = !existsSync(locateServerFiles(home).database);
  if (isDryRun || (isUnused && !readEnvironment().temporalConfigured)) {
    return prune(options, output);
  }
  // Temporal's client takes a second to load.
  const { withSession } = await import('./release.ts');
  const { RELEASES } = await import('./release-handle.ts');
  return withSession(output, async ({ client }) => {
    const running: string[] = [];
    const query = `${RELEASES} AND ExecutionStatus = 'Running'`;
    for await (const { workflowId } of client.workflow.list({ query })) running.push(workflowId);
    if (running.length === 0) return prune(options, output);
    throw new WeldlineError(
      'release.already-running',
      `${running.join(', ')} may need what is in the workspace. Prune it when no release runs or ` +
        'waits: weldline status, weldline resume, weldline cancel.',
    );
  });
}

async function prune(
  { home, keepDays, isDryRun }: PruneWorkspaceOptions,
  output: Output,
): Promise<number> {
  const isOld = (leftover: Leftover): boolean =>
    isRemoved(leftover) || leftover.writtenAtMs < Date.now() - keepDays * DAY_MS;
  const old = (await findLeftovers(home)).filter(isOld);
  const rows: string[][] = [];
  for (const leftover of old) {
    if (!isDryRun) await removeLeftover(leftover);
    const { kind, path, bytes, writtenAtMs } = leftover;
    rows.push([
      '',
      kind,
      formatBytes(bytes),
      new Date(writtenAtMs).toISOString().slice(0, 10),
      path,
    ]);
  }
  if (rows.length > 0) output.line(formatTable(rows));
  const bytes = old.reduce((sum, leftover) => sum + leftover.bytes, 0);
  tellBytes(bytes, isDryRun, output);
  const removed = old.map(({ kind, path, bytes, writtenAtMs }) => ({
    ...{ kind, path, bytes, writtenAt: new Date(writtenAtMs).toISOString() },
  }));
  output.result({ isDryRun, bytes, pruned: removed });
  return EXIT.ok;
}
