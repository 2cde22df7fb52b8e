/** The composition root: builds the activities' dependencies and runs workers with them. */
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { type Logger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { createActivities } from '../activities/create-activities.ts';
import type { Dependencies } from '../activities/dependencies.ts';
import { MemorySlots } from '../activities/memory-slots.ts';
import type { Environment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';
import { modelAccess } from './model-access.ts';
import {
  CONVERT_TASK_QUEUE,
  EVALUATE_TASK_QUEUE,
  MERGE_TASK_QUEUE,
  TASK_QUEUE,
} from './task-queues.ts';
import { waitUntil } from './wait-until.ts';
import { loadWorkflowBundle } from './workflow-bundle.ts';

/** Activities other than merges wait for disks and networks, so several go side by side. */
const ACTIVITIES_MAX = 8;

/** Often enough for a live progress bar, and for little to be lost with a worker. */
const HEARTBEAT_THROTTLE = '1s';

/** Clients have reached the server by now: if it is away, it is being restarted. */
const CONNECT_TIMEOUT_MS = 30_000;
const CONNECT_INTERVAL_MS = 500;

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
  };
}

export interface WorkerOptions {
  readonly environment: Environment;
  readonly address: string;
  readonly namespace: string;
  readonly logger: Logger;
  /** TLS, API key and headers of a configured server. */
  readonly connection?: Omit<Parameters<typeof NativeConnection.connect>[0], 'address'>;
  /** Answer queries only: carries workflows on, but does no work of theirs. */
  readonly workflowsOnly?: boolean;
}

/** Workers that run until they are stopped. */
export interface RunningWorkers {
  /** Rejects if a worker fails for good; resolves after `stop`. */
  readonly finished: Promise<void>;
  /** Lets activities write down what they have, then stops. Safe to call twice. */
  stop(): Promise<void>;
}

let runtimeInstalled = false;

/** The SDK's runtime is one per process and cannot be changed once it is in use. */
function installRuntime(logger: Logger): void {
  if (runtimeInstalled) return;
  runtimeInstalled = true;
  Runtime.install({
    logger,
    // weldline handles SIGINT and SIGTERM itself: the SDK would shut down behind its back.
    shutdownSignals: [],
    telemetryOptions: { logging: { filter: { core: 'WARN', other: 'ERROR' }, forward: {} } },
  });
}

/**
 * Starts the workers of this process.
 * @throws WeldlineError `temporal.unreachable`, `temporal.worker-failed`
 */
export async function startWorkers(options: WorkerOptions): Promise<RunningWorkers> {
  const { environment, address, namespace, logger } = options;
  installRuntime(logger);
  const bundle = await loadWorkflowBundle(join(environment.home, 'cache'), logger);
  const connection = await connect(address, options.connection);
  const common = {
    connection,
    namespace,
    shutdownGraceTime: '1s',
    shutdownForceTime: '60s',
    maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE,
    defaultHeartbeatThrottleInterval: HEARTBEAT_THROTTLE,
  } as const;
  const workflows = { workflowBundle: { code: bundle }, maxCachedWorkflows: 100 };
  const workers: Worker[] = [];
  if (options.workflowsOnly === true) {
    workers.push(await Worker.create({ ...common, ...workflows, taskQueue: TASK_QUEUE }));
  } else {
    const activities = createActivities(dependencies(environment));
    const { mergeShard, convert, evaluate, ...others } = activities;
    workers.push(
      await Worker.create({
        ...common,
        ...workflows,
        taskQueue: TASK_QUEUE,
        activities: others,
        maxConcurrentActivityTaskExecutions: ACTIVITIES_MAX,
      }),
    );
    const oneAtATime: readonly (readonly [taskQueue: string, activities: object])[] = [
      [MERGE_TASK_QUEUE, { mergeShard }],
      [CONVERT_TASK_QUEUE, { convert }],
      [EVALUATE_TASK_QUEUE, { evaluate }],
    ];
    for (const [taskQueue, one] of oneAtATime) {
      workers.push(
        await Worker.create({
          ...common,
          taskQueue,
          activities: one,
          maxConcurrentActivityTaskExecutions: 1,
        }),
      );
    }
  }
  return runAll(workers, connection);
}

async function connect(
  address: string,
  options: WorkerOptions['connection'],
): Promise<NativeConnection> {
  let connection: NativeConnection | undefined;
  let error: unknown;
  const connected = async (): Promise<boolean> => {
    try {
      connection = await NativeConnection.connect({ ...options, address });
      return true;
    } catch (reason) {
      error = reason;
      return false;
    }
  };
  const wait = { timeoutMs: CONNECT_TIMEOUT_MS, pollMs: CONNECT_INTERVAL_MS };
  if (!(await waitUntil(connected, wait)) || connection === undefined) {
    throw new WeldlineError(
      'temporal.unreachable',
      `No Temporal server answers at ${address}. Check TEMPORAL_ADDRESS, or unset it to use the ` +
        'embedded server.',
      { cause: error },
    );
  }
  return connection;
}

function runAll(workers: readonly Worker[], connection: NativeConnection): RunningWorkers {
  const shutDown = (): void => {
    for (const worker of workers) if (worker.getState() === 'RUNNING') worker.shutdown();
  };
  const runs = workers.map((worker) =>
    worker.run().catch((error: unknown) => {
      // One worker without the other would leave releases hanging half way.
      shutDown();
      throw new WeldlineError(
        'temporal.worker-failed',
        `The worker stopped: ${error instanceof Error ? error.message : String(error)}.`,
        { cause: error },
      );
    }),
  );
  const finished = Promise.all(runs)
    .finally(() => connection.close())
    .then(() => undefined);
  finished.catch(() => undefined);
  return {
    finished,
    async stop() {
      shutDown();
      await finished;
    },
  };
}
