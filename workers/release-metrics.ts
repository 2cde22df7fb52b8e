import { Client, type ConnectionLike } from '@temporalio/client';
import type { DataConverter } from '@temporalio/common';
import { type Logger, Runtime } from '@temporalio/worker';
import { TASK_QUEUE } from './task-queues.ts';

/** What waits for a person waits for longer than that. */
const LOOK_INTERVAL_MS = 30_000;
/** Where more are open, an operator has other troubles than an exact number. */
const RELEASES_MAX = 2_000;

const STATES = ['running', 'waiting', 'paused'] as const;
const OUTCOMES = ['released', 'failed', 'cancelled'] as const;
const DECISIONS = ['passed', 'refused'] as const;

export interface ReleaseMetricsOptions {
  readonly connection: ConnectionLike;
  readonly namespace: string;
  readonly dataConverter?: DataConverter;
  readonly logger: Logger;
  readonly intervalMs?: number;
}

/**
 * Tells how many releases are open and what they do. A workflow cannot: while it waits it is not in
 * any worker. So the server's list is read, and each worker that tells it tells the same: take the
 * maximum, not the sum.
 * @returns ends it
 */
export function startReleaseMetrics(options: ReleaseMetricsOptions): () => void {
  const { connection, namespace, dataConverter, logger, intervalMs = LOOK_INTERVAL_MS } = options;
  beginAtZero(namespace);
  const client = new Client({ connection, namespace, ...(dataConverter && { dataConverter }) });
  const open = Runtime.instance().metricMeter.createGauge(
    'weldline_open_releases',
    'int',
    undefined,
    'Releases that have not ended, by what they do; every control worker tells of all',
  );
  let isLooking = false;
  let isFailing = false;
  const look = async (): Promise<void> => {
    if (isLooking) return;
    isLooking = true;
    try {
      const counts = await countStates(client);
      for (const state of STATES) open.set(counts.get(state) ?? 0, { state, namespace });
      isFailing = false;
    } catch (error) {
      if (!isFailing) logger.warn('Open releases cannot be counted', { error });
      isFailing = true;
    } finally {
      isLooking = false;
    }
  };
  void look();
  const timer = setInterval(look, intervalMs);
  timer.unref();
  return () => clearInterval(timer);
}

async function countStates(client: Client): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>();
  const query = "WorkflowType = 'releaseModel' AND ExecutionStatus = 'Running'";
  let seen = 0;
  for await (const { memo } of client.workflow.list({ query })) {
    const listed = memo?.['weldline'] as { readonly state?: string } | undefined;
    const state = listed?.state ?? 'running';
    counts.set(state, (counts.get(state) ?? 0) + 1);
    if (++seen === RELEASES_MAX) break;
  }
  return counts;
}

/**
 * Prometheus sees an increase only of what it has seen before: the first release that fails would
 * alarm nobody. Labels as workflows have them (workflows/metrics.ts).
 */
function beginAtZero(namespace: string): void {
  const labels = { namespace, taskQueue: TASK_QUEUE, workflowType: 'releaseModel' };
  const meter = Runtime.instance().metricMeter;
  const releases = meter.createCounter('weldline_releases', undefined, 'Releases that ended');
  for (const outcome of OUTCOMES) releases.add(0, { ...labels, outcome });
  const decisions = meter.createCounter(
    'weldline_gate_decisions',
    undefined,
    'Artefacts that the gate let pass or refused',
  );
  for (const decision of DECISIONS) decisions.add(0, { ...labels, decision });
}
