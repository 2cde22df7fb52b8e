import { setTimeout as sleep } from 'node:timers/promises';
import { WeldlineError } from '../engine/errors.ts';
import { type CodeOf, connectionFailure, isTransient, statusFailure } from './http-failures.ts';
import type { Patience } from './patience.ts';
import { type StallWatch, stallWatch, watchedBody } from './stall-watch.ts';

export interface HttpRequest {
  /** Never shown: it may be a signed link. */
  readonly url: string | URL;
  readonly method: string;
  readonly headers?: Readonly<Record<string, string>>;
  /**
   * A stream is made anew for each attempt; with `content-length` in the headers it is sent as it
   * is, without in chunks, which not every server takes.
   */
  readonly body?: string | Uint8Array | (() => AsyncIterable<Uint8Array>);
  readonly signal: AbortSignal;
  /** `attemptsMax: 1` for what must not be sent twice. */
  readonly patience: Patience;
  /** What is asked for, as errors show it: without credentials. */
  readonly name: string;
  /** Statuses other than 2xx that are answers, not errors. */
  readonly accept?: readonly number[];
  readonly codeOf: CodeOf;
}

/** A renamed repository, a mirror and a storage host make three. */
const REDIRECTS_MAX = 5;
const REDIRECT_STATUSES: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** Small enough that on a slow line every chunk is a sign of life. */
const BODY_CHUNK_BYTES = 64 * 1024;
/** Doubling ends here. */
const BACKOFF_MAX_MS = 30_000;

/** What a request failed with that may pass by itself. */
class Passing {
  readonly error: WeldlineError;
  constructor(error: WeldlineError) {
    this.error = error;
  }
}

/**
 * One HTTP request: sent again while that may help, watched for stalls up to the last byte of the
 * answer, redirected without its credentials. The caller reads the answer's body or cancels it.
 * @throws WeldlineError by `codeOf`; what a body's stream throws; the signal's reason
 */
export async function httpRequest(request: HttpRequest): Promise<Response> {
  const { patience, signal } = request;
  for (let attempt = 1; ; attempt += 1) {
    signal.throwIfAborted();
    const outcome = await attemptOnce(request);
    if (!(outcome instanceof Passing)) return outcome;
    await pauseAfter(attempt, outcome.error, patience, signal);
  }
}

/**
 * Waits before the next attempt as long as a failure asks for, or ever longer.
 * @param attempt how many have failed
 * @throws the failure, if that was the last attempt or the server asks for too long; the signal's
 *   reason
 */
export async function pauseAfter(
  attempt: number,
  failure: WeldlineError,
  patience: Patience,
  signal: AbortSignal,
): Promise<void> {
  const waitMs = waitAfter(attempt, failure, patience);
  if (attempt >= patience.attemptsMax || waitMs === undefined) throw failure;
  await sleep(waitMs, undefined, { signal }).catch((error: unknown) => {
    signal.throwIfAborted();
    throw error;
  });
}

async function attemptOnce(request: HttpRequest): Promise<Response | Passing> {
  const { name, codeOf, accept = [], signal } = request;
  const watch = stallWatch(request);
  try {
    const response = await follow(request, watch);
    if (response.ok || accept.includes(response.status)) return watchedBody(response, watch);
    const failure = await statusFailure(response, {
      name,
      codeOf,
      headers: new Headers(request.headers),
    });
    watch.end();
    if (isTransient(response.status)) return new Passing(failure);
    throw failure;
  } catch (error) {
    watch.end();
    signal.throwIfAborted();
    if (watch.bodyFailure !== undefined) throw watch.bodyFailure.error;
    if (watch.signal.aborted) return new Passing(watch.signal.reason);
    if (error instanceof WeldlineError) throw error;
    const failure = connectionFailure(error, name, codeOf);
    if (failure instanceof WeldlineError) return new Passing(failure);
    throw error;
  }
}

/** Redirects are followed by hand, so that credentials go to the origin they were given for only. */
async function follow(request: HttpRequest, watch: StallWatch): Promise<Response> {
  const origin = new URL(request.url).origin;
  let url = new URL(request.url);
  let { method, body } = request;
  for (let hop = 0; hop <= REDIRECTS_MAX; hop += 1) {
    const headers = new Headers(request.headers);
    if (!headers.has('user-agent')) headers.set('user-agent', 'weldline');
    if (body !== undefined && typeof body !== 'function') {
      headers.set('content-length', String(Buffer.byteLength(body)));
    }
    if (url.origin !== origin) for (const key of ['authorization', 'cookie']) headers.delete(key);
    watch.alive();
    const response = await fetch(url, {
      method,
      headers,
      redirect: 'manual',
      signal: watch.signal,
      ...(body !== undefined && {
        body: ReadableStream.from(moving(body, watch)),
        duplex: 'half' as const,
      }),
    });
    watch.alive();
    const location = response.headers.get('location');
    if (!REDIRECT_STATUSES.has(response.status) || location === null) return response;
    await response.body?.cancel();
    url = redirectTarget(location, url, request);
    if (response.status === 303 && method !== 'HEAD') [method, body] = ['GET', undefined];
  }
  throw badRedirect(request, `redirects more than ${REDIRECTS_MAX} times`);
}

function redirectTarget(location: string, from: URL, request: HttpRequest): URL {
  if (!URL.canParse(location, from.href)) throw badRedirect(request, 'redirects to no address');
  const target = new URL(location, from);
  const isWeb = target.protocol === 'https:' || target.protocol === 'http:';
  if (!isWeb || target.username !== '' || target.password !== '') {
    throw badRedirect(request, 'redirects to an address that cannot be asked');
  }
  if (from.protocol === 'https:' && target.protocol === 'http:') {
    throw badRedirect(request, 'redirects from HTTPS to plain HTTP');
  }
  return target;
}

function badRedirect({ name, codeOf }: HttpRequest, what: string): WeldlineError {
  return new WeldlineError(
    codeOf(400),
    `${name}: the server ${what}. Check the address and the proxy between here and there.`,
  );
}

/** The body in chunks, each of which shows that the request moves. */
async function* moving(
  body: NonNullable<HttpRequest['body']>,
  watch: StallWatch,
): AsyncIterable<Uint8Array> {
  try {
    for await (const part of typeof body === 'function' ? body() : [Buffer.from(body)]) {
      for (let at = 0; at < part.byteLength; at += BODY_CHUNK_BYTES) {
        watch.alive();
        yield part.subarray(at, at + BODY_CHUNK_BYTES);
      }
    }
  } catch (error) {
    watch.bodyFailure = { error };
    throw error;
  }
  watch.alive();
}

/** How long to wait, or undefined if the server asks for longer than we are ready to. */
function waitAfter(attempt: number, error: WeldlineError, patience: Patience): number | undefined {
  const asked = error.details['retryAfterMs'];
  if (typeof asked === 'number') return asked <= patience.retryAfterMaxMs ? asked : undefined;
  const waitMs = Math.min(patience.backoffMs * 2 ** (attempt - 1), BACKOFF_MAX_MS);
  // Jitter, so that those whom a server sent away do not come back all at once.
  return waitMs * (0.5 + Math.random() / 2);
}
