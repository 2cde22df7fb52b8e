/** The composition root: builds the activities' dependencies and runs workers with them. */
import { join } from 'node:path';
import { type Logger, Worker } from '@temporalio/worker';
import { createActivities } from '../activities/create-activities.ts';
import type { Dependencies } from '../activities/dependencies.ts';
import { MemorySlots } from '../activities/memory-slots.ts';
import type { Role } from '../activities/types.ts';
import type { Environment } from '../config/environment.ts';
import { type ConnectionOptions, connect } from './connect.ts';
import { workerDataConverter } from './data-converter.ts';
import { modelAccess } from './model-access.ts';
import { observedLogger } from './observed-logger.ts';
import { payloadKeysOf } from './payload-keys.ts';
import { startProcessMetrics } from './process-metrics.ts';
import { startReleaseMetrics } from './release-metrics.ts';
import { ROLES } from './roles.ts';
import { type RunningWorkers, runWorkers } from './run-workers.ts';
import { installRuntime } from './runtime.ts';
import { chooseSlots, thisMachine } from './slots.ts';
import { placeOf, TASK_QUEUE } from './task-queues.ts';
import { startTracing } from './tracing.ts';
import { type WorkerSpec, workerSpecs } from './worker-specs.ts';
import { deploymentOptions, type WorkerVersion, workerVersion } from './worker-version.ts';
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
    memory: new MemorySlots(thisMachine().memoryBytes),
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
 * @throws WeldlineError `temporal.*`, `config.invalid`
 */
export async function startWorkers(options: WorkerOptions): Promise<RunningWorkers> {
  const { environment, address, namespace } = options;
  const { home, worker } = environment;
  const logger = observedLogger(options.logger, { home, host: worker.host });
  // What only answers queries is not worth a port.
  const metricsAddress = options.workflowsOnly === true ? undefined : worker.metricsAddress;
  installRuntime(logger, metricsAddress);
  const tracing = await startTracing(environment, (line) => logger.warn(line));
  const keys = payloadKeysOf(environment);
  for (const warning of keys.warnings) logger.warn(warning);
  const bundle = await loadWorkflowBundle(join(home, 'cache'), logger, {
    traced: tracing !== undefined,
    encodesFailures: keys.current !== undefined,
  });
  const connection = await connect(address, options.connection);
  const version = workerVersion(environment.worker, bundle);
  const common = {
    connection,
    namespace,
    dataConverter: workerDataConverter(keys),
    shutdownGraceTime: '1s',
    shutdownForceTime: '60s',
    maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE,
    defaultHeartbeatThrottleInterval: HEARTBEAT_THROTTLE,
    ...tracing?.worker,
  } as const;
  const versioned = deploymentOptions(version);
  const workflows = { workflowBundle: { code: bundle }, maxCachedWorkflows: 100 };
  const workers: Worker[] = [];
  if (options.workflowsOnly === true) {
    workers.push(
      await Worker.create({ ...common, ...versioned, ...workflows, taskQueue: TASK_QUEUE }),
    );
  } else {
    const activities = createActivities(dependencies(environment));
    const { roles = ROLES } = options;
    const slots = chooseSlots(thisMachine(), environment);
    const specs = workerSpecs(environment.worker, roles, slots, activities);
    for (const spec of specs) {
      workers.push(
        await Worker.create({
          ...common,
          ...(spec.isVersioned ? versioned : {}),
          ...(spec.workflows ? workflows : {}),
          taskQueue: spec.taskQueue,
          activities: spec.activities,
          maxConcurrentActivityTaskExecutions: spec.slots,
        }),
      );
    }
    logger.info('Working', whatIsServed(environment, specs, slots.reason, version));
  }
  const running = runWorkers(workers, connection, tracing?.flush);
  if (metricsAddress !== undefined) {
    const stops = [startProcessMetrics(home)];
    if ((options.roles ?? ROLES).includes('control')) {
      stops.push(
        startReleaseMetrics({ connection, namespace, dataConverter: common.dataConverter, logger }),
      );
    }
    const stopMetrics = (): void => {
      for (const stop of stops) stop();
    };
    running.finished.then(stopMetrics, stopMetrics);
  }
  return running;
}

/** For the log: what an operator asks of a worker that does too little, or too much. */
function whatIsServed(
  { home, worker }: Environment,
  specs: readonly WorkerSpec[],
  reason: string,
  version: WorkerVersion,
): Record<string, unknown> {
  const queues = Object.fromEntries(specs.map(({ taskQueue, slots }) => [taskQueue, slots]));
  const { host, storage } = worker;
  return { host, storage, home, queues, mergeSlots: reason, ...version };
}
