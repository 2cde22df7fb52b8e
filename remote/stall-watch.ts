import type { WeldlineError } from '../engine/errors.ts';
import { type CodeOf, connectionFailure, stalled } from './http-failures.ts';
import type { Patience } from './patience.ts';

/** Aborts one attempt at a request when nothing has moved for too long, or its caller aborts. */
export interface StallWatch {
  readonly signal: AbortSignal;
  readonly name: string;
  readonly codeOf: CodeOf;
  /** Something moved, or is to move now. */
  alive(): void;
  /** Nothing is expected: the caller takes its time. */
  rest(): void;
  end(): void;
  /** What the stream of the request's own body threw. */
  bodyFailure: { readonly error: unknown } | undefined;
}

export function stallWatch(request: {
  readonly signal: AbortSignal;
  readonly patience: Patience;
  readonly name: string;
  readonly codeOf: CodeOf;
}): StallWatch {
  const { signal, name, codeOf } = request;
  const timeoutMs = request.patience.stallTimeoutMs;
  const controller = new AbortController();
  const onAbort = () => controller.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  let timer: NodeJS.Timeout | undefined;
  return {
    signal: controller.signal,
    name,
    codeOf,
    bodyFailure: undefined,
    alive() {
      clearTimeout(timer);
      timer = setTimeout(() => controller.abort(stalled(name, timeoutMs, codeOf)), timeoutMs);
    },
    rest: () => clearTimeout(timer),
    end() {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    },
  };
}

/**
 * The same answer, with a body that fails when it stalls or breaks off, by the names of errors that
 * the request has.
 */
export function watchedBody(response: Response, watch: StallWatch): Response {
  const { body, status, statusText, headers } = response;
  watch.rest();
  if (body === null) {
    watch.end();
    return response;
  }
  const reader = body.getReader();
  const watched = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          watch.alive();
          const { done, value } = await reader.read();
          watch.rest();
          if (!done) return controller.enqueue(value);
          watch.end();
          controller.close();
        } catch (error) {
          watch.end();
          controller.error(
            watch.signal.aborted
              ? (watch.signal.reason as WeldlineError)
              : connectionFailure(error, watch.name, watch.codeOf),
          );
        }
      },
      async cancel(reason) {
        watch.end();
        await reader.cancel(reason);
      },
    },
    // Read when asked for, so that a caller who takes long is not mistaken for a stall.
    { highWaterMark: 0 },
  );
  return new Response(watched, { status, statusText, headers });
}
