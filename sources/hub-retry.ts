import { WeldlineError } from '../engine/errors.ts';
import type { HubPatience } from './hub-connection.ts';
import { pause } from './pause.ts';

/** What may pass by itself within seconds. Everything else fails at once. */
const TRANSIENT_CODES: ReadonlySet<string> = new Set([
  'hub.rate-limited',
  'hub.unavailable',
  'hub.stalled',
  // One stale node of a mirror or CDN answers wrongly, the next one rightly.
  'hub.file-changed',
]);

export interface RetryOptions {
  readonly patience: HubPatience;
  readonly signal?: AbortSignal | undefined;
  /** Bytes moved so far over all attempts; an attempt that moved enough ends a run of failures. */
  readonly bytesMoved?: () => number;
}

/**
 * Less than this between two failures is no progress: a server that hands out a few bytes per
 * connection would otherwise be asked for ever.
 */
const PROGRESS_BYTES_MIN = 1024 * 1024;

/** Runs `attempt` until it succeeds, fails for good, or has failed too often in a row. */
export async function withRetries<T>(options: RetryOptions, attempt: () => Promise<T>): Promise<T> {
  const { patience, signal, bytesMoved = () => 0 } = options;
  let failures = 0;
  let bytesAtFailure = bytesMoved();
  for (;;) {
    signal?.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof WeldlineError) || !TRANSIENT_CODES.has(error.code)) throw error;
      if (bytesMoved() - bytesAtFailure >= PROGRESS_BYTES_MIN) failures = 0;
      bytesAtFailure = bytesMoved();
      failures += 1;
      const waitMs = waitAfter(error, failures, patience);
      if (failures >= patience.attemptsMax || waitMs === undefined) throw error;
      await pause(waitMs, signal);
    }
  }
}

/** How long to wait, or undefined if the server asks for longer than we are ready to. */
function waitAfter(
  error: WeldlineError,
  failures: number,
  patience: HubPatience,
): number | undefined {
  const asked = error.details['retryAfterMs'];
  if (typeof asked === 'number') return asked <= patience.retryAfterMsMax ? asked : undefined;
  const delayMs = Math.min(patience.delayMs * 2 ** (failures - 1), patience.delayMsMax);
  // Jitter, so that the connections of one download do not come back all at once.
  return delayMs * (0.5 + Math.random() / 2);
}

/**
 * Milliseconds the server asks to wait, from `Retry-After` (seconds or a date) or the reset time of
 * the IETF draft header `RateLimit: "api";r=0;t=55`, which the hub sends.
 */
export function retryAfterMs(headers: Headers, nowMs: number): number | undefined {
  const after = headers.get('retry-after')?.trim();
  if (after !== undefined && /^\d{1,9}$/.test(after)) return Number(after) * 1000;
  const dateMs = after === undefined ? Number.NaN : Date.parse(after);
  if (!Number.isNaN(dateMs)) return Math.max(0, dateMs - nowMs);
  const reset = /(?:^|;)\s*t=(\d{1,9})(?:;|$)/.exec(headers.get('ratelimit') ?? '')?.[1];
  return reset === undefined ? undefined : Number(reset) * 1000;
}

export interface StallOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** What is being read, for the message. */
  readonly name: string;
}

/**
 * Runs `work` with a signal that fires when `alive` has not been called for `timeoutMs`, or when the
 * caller's own signal fires.
 * @throws WeldlineError `hub.stalled`, `hub.unavailable` for a broken connection, or the caller's
 *   abort reason
 */
export async function withStallTimer<T>(
  options: StallOptions,
  work: (signal: AbortSignal, alive: () => void) => Promise<T>,
): Promise<T> {
  const { timeoutMs, signal, name } = options;
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(stalled(name, timeoutMs)), timeoutMs);
  const onAbort = () => controller.abort(signal?.reason);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    signal?.throwIfAborted();
    return await work(controller.signal, () => timer.refresh());
  } catch (error) {
    if (controller.signal.aborted) throw controller.signal.reason;
    throw connectionFailure(error, name);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

function stalled(name: string, timeoutMs: number): WeldlineError {
  return new WeldlineError(
    'hub.stalled',
    `No byte of ${name} arrived for ${timeoutMs / 1000} s. What was read is kept; check the ` +
      'network or proxy and run again.',
  );
}

/** `fetch` reports a broken connection as a TypeError with a cause; mistakes in code have none. */
function connectionFailure(error: unknown, name: string): unknown {
  if (!(error instanceof TypeError) || error.cause === undefined) return error;
  const cause = error.cause as { code?: unknown; message?: unknown } | null;
  const reason = cause?.code ?? cause?.message ?? error.message;
  return new WeldlineError(
    'hub.unavailable',
    `The connection failed while reading ${name} (${String(reason)}). Check the network, the ` +
      'proxy and HF_ENDPOINT, and run again.',
  );
}
