import { hostname } from 'node:os';
import { type Get, invalid, readEndpoint } from './variables.ts';

/** What workers take from the environment. */
export interface WorkerEnvironment {
  /**
   * `shared`: all workers have the same home, on storage they share. `local`: each host has a home on
   * a disk of its own, and does a release from its beginning to its end.
   */
  storage: 'shared' | 'local';
  /** Name of this host, the same after a restart. */
  host: string;
  /** After this long without an answer a host with disks of its own is given up. */
  hostTimeoutMs: number;
  /** Releases stay on the version of the workers that they began with; absent: workers have none. */
  deployment?: { name: string; buildId?: string };
  /** Activities side by side, where the user knows better than weldline. */
  slots: { merge?: number; convert?: number; gpu?: number };
  /** `host:port` where Prometheus finds the metrics. */
  metricsAddress?: string;
  /** Where traces go, by OTLP over HTTP: the URL that takes them. */
  tracesEndpoint?: string;
}

const HOST_TIMEOUT_SECONDS = 600;
const HOST_TIMEOUT_SECONDS_MAX = 7 * 86_400;
const SLOTS_MAX = 256;

/** @throws WeldlineError `config.invalid` */
export function readWorkerEnvironment(get: Get): WorkerEnvironment {
  const deployment = get('WELDLINE_DEPLOYMENT');
  const buildId = get('WELDLINE_BUILD_ID');
  const merge = readNumber('WELDLINE_MERGE_SLOTS', SLOTS_MAX, get);
  const convert = readNumber('WELDLINE_CONVERT_SLOTS', SLOTS_MAX, get);
  const gpu = readNumber('WELDLINE_GPU_SLOTS', SLOTS_MAX, get);
  const metricsAddress = readMetricsAddress(get('WELDLINE_METRICS_ADDRESS'));
  const tracesEndpoint = readTracesEndpoint(get);
  const hostTimeout = readNumber('WELDLINE_HOST_TIMEOUT', HOST_TIMEOUT_SECONDS_MAX, get);
  return {
    storage: readStorage(get('WELDLINE_STORAGE')),
    host: readHost(get('WELDLINE_HOST')),
    hostTimeoutMs: 1000 * (hostTimeout ?? HOST_TIMEOUT_SECONDS),
    ...(deployment && { deployment: { name: deployment, ...(buildId && { buildId }) } }),
    slots: { ...(merge && { merge }), ...(convert && { convert }), ...(gpu && { gpu }) },
    ...(metricsAddress && { metricsAddress }),
    ...(tracesEndpoint && { tracesEndpoint }),
  };
}

function readStorage(value = 'shared'): WorkerEnvironment['storage'] {
  if (value === 'shared' || value === 'local') return value;
  throw invalid('WELDLINE_STORAGE', `is "${value}"`, 'shared or local');
}

/** It becomes part of the names of task queues. */
function readHost(value = hostname()): string {
  if (/^[\w.-]{1,200}$/.test(value)) return value;
  throw invalid('WELDLINE_HOST', `is "${value}"`, 'a name of letters, digits, dots and dashes');
}

function readNumber(name: string, max: number, get: Get): number | undefined {
  const value = get(name);
  if (value === undefined) return undefined;
  const number = /^\d{1,6}$/.test(value) ? Number(value) : 0;
  if (number >= 1 && number <= max) return number;
  throw invalid(name, `is "${value}"`, `a whole number from 1 to ${max}`);
}

function readMetricsAddress(value: string | undefined): string | undefined {
  if (value === undefined) return undefined;
  const port = /^(?:\[[0-9a-f:]+\]|[\w.-]+):(\d{1,5})$/i.exec(value)?.[1];
  if (port !== undefined && Number(port) <= 65_535) return value;
  const wanted = 'an address such as 127.0.0.1:9464';
  throw invalid('WELDLINE_METRICS_ADDRESS', `is "${value}"`, wanted);
}

/** By the names and rules of OpenTelemetry: the one for traces is taken as it is. */
function readTracesEndpoint(get: Get): string | undefined {
  const traces = get('OTEL_EXPORTER_OTLP_TRACES_ENDPOINT');
  if (traces !== undefined) return readEndpoint('OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', traces);
  const all = get('OTEL_EXPORTER_OTLP_ENDPOINT');
  if (all === undefined) return undefined;
  return `${readEndpoint('OTEL_EXPORTER_OTLP_ENDPOINT', all)}/v1/traces`;
}
