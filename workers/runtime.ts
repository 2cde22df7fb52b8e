import { type Logger, Runtime } from '@temporalio/worker';

let isInstalled = false;

/** The SDK's runtime is one per process and cannot be changed once it is in use. */
export function installRuntime(logger: Logger): void {
  if (isInstalled) return;
  isInstalled = true;
  Runtime.install({
    logger,
    // weldline handles SIGINT and SIGTERM itself: the SDK would shut down behind its back.
    shutdownSignals: [],
    telemetryOptions: { logging: { filter: { core: 'WARN', other: 'ERROR' }, forward: {} } },
  });
}
