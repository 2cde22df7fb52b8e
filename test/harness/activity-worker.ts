import { NativeConnection, Worker } from '@temporalio/worker';
import { createActivities } from '../../activities/create-activities.ts';
import type { Dependencies } from '../../activities/dependencies.ts';
import type { Environment } from '../../config/environment.ts';
import { createLogger } from '../../workers/logger.ts';
import { dependencies as dependenciesOf } from '../../workers/main.ts';
import { SHARED_QUEUES, TASK_QUEUE } from '../../workers/task-queues.ts';
import { loadWorkflowBundle } from '../../workers/workflow-bundle.ts';
import type { TestServer } from './temporal-server.ts';
import { SHARED_BUNDLES } from './workflow-bundle.ts';

export interface ActivityWorkerOptions {
  /** Names of the activities it takes on; all if not given. */
  readonly only?: readonly string[];
  readonly taskQueue?: string;
  /** What it takes on and never begins, until it is stopped: as if it had died before. */
  readonly holds?: (activity: string, input: never) => boolean;
}

/**
 * A worker whose activities have other dependencies than a process would give them, or that takes
 * on only some of them.
 *
 * @returns a function that stops it
 */
export async function startActivityWorker(
  server: TestServer,
  dependencies: Dependencies,
  { only, taskQueue = TASK_QUEUE, holds = () => false }: ActivityWorkerOptions = {},
): Promise<() => Promise<void>> {
  const { address, namespace } = server;
  const connection = await NativeConnection.connect({ address });
  const activities = Object.fromEntries(
    Object.entries(createActivities(dependencies)).filter(([name]) => only?.includes(name) ?? true),
  );
  const code = await loadWorkflowBundle(SHARED_BUNDLES, createLogger('error'));
  const worker = await Worker.create({
    connection,
    namespace,
    taskQueue,
    activities,
    ...(only === undefined ? { workflowBundle: { code } } : {}),
    interceptors: {
      activity: [
        (context) => ({
          inbound: {
            async execute(input, next) {
              if (holds(context.info.activityType, input.args[0] as never)) await context.cancelled;
              return next(input);
            },
          },
        }),
      ],
    },
    maxHeartbeatThrottleInterval: '250ms',
    defaultHeartbeatThrottleInterval: '250ms',
  });
  const run = worker.run();
  return async () => {
    worker.shutdown();
    await run;
    await connection.close();
  };
}

/**
 * A worker that merges and does nothing else. Its heartbeats, by whose answers it hears that it shall stop,
 * are four a second.
 *
 * @returns a function that stops it
 */
export function startMerging(
  server: TestServer,
  environment: Environment,
  options: Pick<ActivityWorkerOptions, 'holds'> = {},
): Promise<() => Promise<void>> {
  return startActivityWorker(server, dependenciesOf(environment), {
    only: ['mergeShard'],
    taskQueue: SHARED_QUEUES.merge,
    ...options,
  });
}
