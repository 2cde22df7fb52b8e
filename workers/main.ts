/** The composition root: builds the activities' dependencies and runs workers with them. */
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { type Logger, Worker } from '@temporalio/worker';
import { createActivities } from '../activities/create-activities.ts';
import type { Dependencies } from '../activities/dependencies.ts';
import { MemorySlots } from '../activities/memory-slots.ts';
import type { Role } from '../activities/types.ts';
import type { Environment } from '../config/environment.ts';
import { type ConnectionOptions, connect } from './connect.ts';
import { modelAccess } from './model-access.ts';
import { observedLogger } from './observed-logger.ts';
import { startProcessMetrics } from './process-metrics.ts';
import { startReleaseMetrics } from './release-metrics.ts';
import { type RunningWorkers, runWorkers } from './run-workers.ts';
import { installRuntime } from './runtime.ts';
import { placeOf, TASK_QUEUE } from './task-queues.ts';
import { startTracing } from './tracing.ts';
import { ROLES, workerSpecs } from './worker-specs.ts';
import { loadWorkflowBundle } from './workflow-bundle.ts';

/** Often enough for a live progress bar, and for little to be lost with a worker. */
const HEARTBEAT_THROTTLE = '1s';

export function dependencies(environment: Environment): Dependencies {
  return {
    home: environment.home,
    access: modelAccess(environment),
    threads: environment.threads,
    memoryBudgetBytes: environment.memoryBudgetBytes,
    tools: environment,
    publishing: environment,
    identity: environment,
    memory: new MemorySlots(totalmem()),
    place: placeOf(environment.worker),
  };
}

export interface WorkerOptions {
  readonly environment: Environment;
  readonly address: string;
  readonly namespace: string;
  readonly logger: Logger;
  /** TLS, API key and headers of a configured server. */
  readonly connection?: ConnectionOptions;
  /** What they do; everything if not given. */
  readonly roles?: readonly Role[];
  /** Answer queries only: carries workflows on, but does no work of theirs. */
  readonly workflowsOnly?: boolean;
}

/**
 * Starts the workers of this process.
 * @throws WeldlineError `temporal.unreachable`, `temporal.worker-failed`
 */
export async function startWorkers(options: WorkerOptions): Promise<RunningWorkers> {
  const { environment, address, namespace } = options;
  const { home, worker } = environment;
  const logger = observedLogger(options.logger, { home, host: worker.host });
  // What only answers queries is not worth a port.
  const metricsAddress = options.workflowsOnly === true ? undefined : worker.metricsAddress;
  installRuntime(logger, metricsAddress);
  const tracing = await startTracing(environment, (line) => logger.warn(line));
  const traced = tracing !== undefined;
  const bundle = await loadWorkflowBundle(join(home, 'cache'), logger, { traced });
  const connection = await connect(address, options.connection);
  const common = {
    connection,
    namespace,
    shutdownGraceTime: '1s',
    shutdownForceTime: '60s',
    maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE,
    defaultHeartbeatThrottleInterval: HEARTBEAT_THROTTLE,
    ...tracing?.worker,
  } as const;
  const workflows = { workflowBundle: { code: bundle }, maxCachedWorkflows: 100 };
  const workers: Worker[] = [];
  if (options.workflowsOnly === true) {
    workers.push(await Worker.create({ ...common, ...workflows, taskQueue: TASK_QUEUE }));
  } else {
    const activities = createActivities(dependencies(environment));
    const { roles = ROLES } = options;
    for (const spec of workerSpecs(environment.worker, roles, activities)) {
      workers.push(
        await Worker.create({
          ...common,
          ...(spec.workflows ? workflows : {}),
          taskQueue: spec.taskQueue,
          activities: spec.activities,
          maxConcurrentActivityTaskExecutions: spec.slots,
        }),
      );
    }
  }
  const running = runWorkers(workers, connection, tracing?.flush);
  if (metricsAddress !== undefined) {
    const stops = [startProcessMetrics(home)];
    if ((options.roles ?? ROLES).includes('control')) {
      stops.push(startReleaseMetrics({ connection, namespace, logger }));
    }
    const stopMetrics = (): void => {
      for (const stop of stops) stop();
    };
    running.finished.then(stopMetrics, stopMetrics);
  }
  return running;
}
