import type { WorkflowExecutionInfo } from '@temporalio/client';
import { WeldlineError } from '../engine/errors.ts';
import { EXIT } from './exit-codes.ts';
import { formatDuration, formatMoment, formatTable } from './format.ts';
import type { Output } from './output.ts';
import { withSession } from './release.ts';
import { RELEASES } from './release-handle.ts';
import { stateOf } from './release-state.ts';

export interface ListCommand {
  /** Every run of every release. */
  readonly all?: boolean;
  readonly limit?: string;
}

const LIMIT_DEFAULT = 50;

/** So many runs are looked at: a server that keeps them for years has more than anybody reads. */
const RUNS_MAX = 10_000;

interface ListedRelease {
  readonly id: string;
  readonly state: string;
  readonly stages: readonly string[];
  /** Why it waits. */
  readonly code?: string;
  /** ISO 8601, UTC; of the last run. */
  readonly startedAt: string;
  readonly endedAt?: string;
  /** Absent where each run has a line. */
  runs?: number;
}

/** `weldline list`: all releases the server knows, the one that was started last first. */
export function runList(options: ListCommand, output: Output): Promise<number> {
  const limit = readLimit(options.limit);
  return withSession(output, async (session) => {
    const releases: ListedRelease[] = [];
    const byId = new Map<string, ListedRelease>();
    let runs = 0;
    const { workflow } = session.client;
    for await (const execution of workflow.list({ query: RELEASES, pageSize: 1000 })) {
      if (++runs > RUNS_MAX || (options.all === true && runs > limit)) break;
      const known = byId.get(execution.workflowId);
      if (known !== undefined && options.all !== true) {
        known.runs = (known.runs ?? 1) + 1;
        continue;
      }
      const release = toListed(execution, options.all === true);
      releases.push(release);
      byId.set(release.id, release);
    }
    // The server has those first that have not ended.
    releases.sort((a, b) => b.startedAt.localeCompare(a.startedAt));
    const shown = releases.slice(0, limit);
    if (shown.length === 0) output.line('No releases yet. Start one: weldline release <recipe>');
    else output.line(formatTable([HEAD, ...shown.map(toRow)]));
    const left = releases.length - shown.length;
    if (left > 0) output.line(`and ${left} more: weldline list --limit ${releases.length}`);
    if (session.embedded && !session.mayHaveWorkers()) {
      const idle = shown.find(({ state }) => state === 'running');
      if (idle !== undefined) {
        output.line(`No weldline process works on ${idle.id}: weldline resume ${idle.id}`);
      }
    }
    output.result(shown);
    return EXIT.ok;
  });
}

const HEAD = ['RELEASE', 'STATE', 'STAGE', 'STARTED', 'AGE', 'RUNS'];

function toListed(execution: WorkflowExecutionInfo, isRun: boolean): ListedRelease {
  const { name, ...where } = stateOf(execution);
  const { closeTime } = execution;
  return {
    id: execution.workflowId,
    state: name,
    ...where,
    startedAt: execution.startTime.toISOString(),
    ...(closeTime === undefined ? {} : { endedAt: closeTime.toISOString() }),
    ...(isRun ? {} : { runs: 1 }),
  };
}

function toRow({ id, state, stages, code, startedAt, runs }: ListedRelease): string[] {
  const where = [stages.join(', '), code === undefined ? '' : `[${code}]`].filter(Boolean);
  const age = formatDuration(Math.max(0, Date.now() - Date.parse(startedAt)));
  const started = formatMoment(startedAt);
  return [id, state, where.join(' '), started, age, runs === undefined ? '' : String(runs)];
}

function readLimit(text: string | undefined): number {
  if (text === undefined) return LIMIT_DEFAULT;
  const limit = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (limit > 0) return limit;
  throw new WeldlineError('cli.usage', `--limit is "${text}", not a whole number from 1 to 99999.`);
}
