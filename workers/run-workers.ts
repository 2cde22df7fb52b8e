import type { NativeConnection, Worker } from '@temporalio/worker';
import { WeldlineError } from '../engine/errors.ts';

/** Workers that run until they are stopped. */
export interface RunningWorkers {
  /** Rejects if a worker fails for good; resolves after `stop`. */
  readonly finished: Promise<void>;
  /** Lets activities write down what they have, then stops. Safe to call twice. */
  stop(): Promise<void>;
}

/**
 * Runs workers of one connection together: if one fails, all stop.
 * @param afterwards the last thing that is done, however they ended
 */
export function runWorkers(
  workers: readonly Worker[],
  connection: NativeConnection,
  afterwards: () => Promise<void> = async () => undefined,
): RunningWorkers {
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
    .finally(afterwards)
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
