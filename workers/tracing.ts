import type { WorkflowClientInterceptor } from '@temporalio/client';
import type { WorkerOptions } from '@temporalio/worker';
import type { Environment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';

/** What clients and workers need so that a release is one trace. */
export interface Tracing {
  readonly client: WorkflowClientInterceptor;
  /** Of workers; the workflow's own interceptors are in the bundle. */
  readonly worker: Required<Pick<WorkerOptions, 'interceptors' | 'sinks'>>;
  /** Sends what is still here, or gives up after some seconds: never fails. */
  flush(): Promise<void>;
}

const FLUSH_TIMEOUT_MS = 5_000;

let tracing: Promise<Tracing> | undefined;

/**
 * Traces of this process, where the user wants some. Packages of OpenTelemetry are loaded only then:
 * they are optional, and take a while.
 * @param note told where traces do not arrive
 * @throws WeldlineError `tool.not-found` where they were not installed
 */
export async function startTracing(
  { worker }: Pick<Environment, 'worker'>,
  note: (line: string) => void,
): Promise<Tracing | undefined> {
  const { tracesEndpoint, host } = worker;
  if (tracesEndpoint === undefined) return undefined;
  // The provider is global to the process, as OpenTelemetry wants it.
  tracing ??= createTracing(tracesEndpoint, host, note);
  return tracing;
}

async function createTracing(
  url: string,
  host: string,
  note: (line: string) => void,
): Promise<Tracing> {
  const { createProvider, interceptors } = await loadTelemetry();
  const { provider, processor, resource } = createProvider({ url, host, note });
  return {
    ...interceptors(processor, resource),
    async flush() {
      const timer = new AbortController();
      const late = new Promise<void>((resolve) => {
        const timeout = setTimeout(resolve, FLUSH_TIMEOUT_MS);
        timer.signal.addEventListener('abort', () => clearTimeout(timeout));
      });
      await Promise.race([provider.forceFlush().catch(() => undefined), late]);
      timer.abort();
    },
  };
}

async function loadTelemetry() {
  try {
    return await import('./open-telemetry.ts');
  } catch (error) {
    throw new WeldlineError(
      'tool.not-found',
      'OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, but the packages of OpenTelemetry are not ' +
        'installed: they are optional dependencies of weldline. Install weldline without ' +
        '--omit=optional, or unset the variable.',
      { cause: error },
    );
  }
}
