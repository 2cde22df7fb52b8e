import { type Logger, Runtime } from '@temporalio/worker';
import { WeldlineError } from '../engine/errors.ts';

/** Stages take from a second, small models from local disks, to days over slow networks. */
const STAGE_BUCKETS_SECONDS = [1, 5, 15, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400];

let isInstalled = false;

/**
 * The SDK's runtime is one per process and cannot be changed once it is in use.
 * @param metricsAddress `ip:port` where Prometheus finds the metrics
 * @throws WeldlineError `config.invalid` where that cannot be listened on
 */
export function installRuntime(logger: Logger, metricsAddress?: string): void {
  if (isInstalled) return;
  try {
    Runtime.install({
      logger,
      // weldline handles SIGINT and SIGTERM itself: the SDK would shut down behind its back.
      shutdownSignals: [],
      telemetryOptions: {
        logging: { filter: { core: 'WARN', other: 'ERROR' }, forward: {} },
        ...(metricsAddress === undefined ? {} : { metrics: metricsAt(metricsAddress) }),
      },
    });
  } catch (error) {
    if (metricsAddress === undefined) throw error;
    throw new WeldlineError(
      'config.invalid',
      `WELDLINE_METRICS_ADDRESS: the metrics cannot be served at ${metricsAddress}: ` +
        `${error instanceof Error ? error.message : String(error)}. Give an IP address of this ` +
        'machine and a port that no other program, and no other worker, listens on.',
      { cause: error },
    );
  }
  isInstalled = true;
}

function metricsAt(bindAddress: string) {
  return {
    attachServiceName: false,
    prometheus: {
      bindAddress,
      countersTotalSuffix: true,
      unitSuffix: true,
      useSecondsForDurations: true,
      histogramBucketOverrides: { weldline_stage_duration: STAGE_BUCKETS_SECONDS },
    },
  };
}
