import { setTimeout as pause } from 'node:timers/promises';
import type { Secret } from '../../config/secret.ts';
import { WeldlineError } from '../../engine/errors.ts';

const TRIES_MAX = 6;
const PAUSE_FIRST_MS = 500;
const PAUSE_MAX_MS = 30_000;
/** A server may ask for a pause; what is longer than this is an outage. */
const RETRY_AFTER_MAX_MS = 120_000;
/** Silence before the answer and within it. Node's own limit for both is 300 s. */
const STALL_TIMEOUT_MS = 240_000;
const RESPONSE_LENGTH_MAX = 64 << 20;
const QUOTE_LENGTH_MAX = 500;
/** Too many requests, and what servers and proxies say while something starts or restarts. */
const PASSING_STATUSES = [408, 429, 500, 502, 503, 504];

export interface EndpointClientOptions {
  /** Without a trailing slash: `http://127.0.0.1:8000/v1`. */
  readonly url: string;
  readonly key?: Secret | undefined;
  /** Silence after which a request is tried again. */
  readonly stallTimeoutMs?: number;
  /** The first pause before another try; each further one is twice as long. */
  readonly pauseFirstMs?: number;
}

/** A failure that may pass by itself. */
class PassingFailure extends Error {
  readonly pauseMs: number | undefined;

  constructor(message: string, pauseMs?: number, cause?: unknown) {
    super(message, { cause });
    this.pauseMs = pauseMs;
  }
}

/** Speaks HTTP with an OpenAI-compatible server: retries, time limits, errors without the key. */
export class EndpointClient {
  readonly #options: EndpointClientOptions;

  constructor(options: EndpointClientOptions) {
    this.#options = options;
  }

  /**
   * Sends a request until it is answered, and reads the whole answer.
   *
   * @param read makes the result of the body, or throws SyntaxError if that was cut off
   * @param model for errors
   * @throws WeldlineError `evaluate.endpoint-failed`; the reason of `signal`
   */
  async request<T>(
    path: string,
    body: object | undefined,
    model: string,
    read: (text: string) => T,
    signal: AbortSignal,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return read(await this.#send(path, body, model, signal));
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof PassingFailure || error instanceof SyntaxError)) throw error;
        if (attempt === TRIES_MAX) {
          throw this.#failure(path, model, `${error.message}, ${attempt} times`, error);
        }
        const { pauseFirstMs = PAUSE_FIRST_MS } = this.#options;
        const backOffMs = Math.min(pauseFirstMs * 2 ** (attempt - 1), PAUSE_MAX_MS);
        const pauseMs = (error instanceof PassingFailure ? error.pauseMs : undefined) ?? backOffMs;
        await pause(pauseMs, undefined, { signal }).catch(() => {});
        signal.throwIfAborted();
      }
    }
  }

  async #send(
    path: string,
    body: object | undefined,
    model: string,
    signal: AbortSignal,
  ): Promise<string> {
    const { url, key, stallTimeoutMs = STALL_TIMEOUT_MS } = this.#options;
    const stall = new AbortController();
    const timer = setTimeout(() => stall.abort(), stallTimeoutMs);
    try {
      const response = await fetch(`${url}${path}`, {
        method: body === undefined ? 'GET' : 'POST',
        headers: {
          'content-type': 'application/json',
          ...(key === undefined ? {} : { authorization: `Bearer ${key.reveal()}` }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        // Another server would get the prompts.
        redirect: 'manual',
        signal: AbortSignal.any([signal, stall.signal]),
      });
      const text = await readText(response, () => timer.refresh());
      if (response.ok) return text;
      throw this.#refusal(response, text, path, model);
    } catch (error) {
      if (stall.signal.aborted) {
        throw new PassingFailure(`says nothing for ${stallTimeoutMs / 1000} s`);
      }
      if (error instanceof PassingFailure || error instanceof WeldlineError) throw error;
      const cause = (error as { cause?: { code?: string } }).cause?.code;
      throw new PassingFailure(
        `cannot be reached (${cause ?? (error as Error).message})`,
        undefined,
        error,
      );
    } finally {
      clearTimeout(timer);
    }
  }

  #refusal(response: Response, text: string, path: string, model: string): Error {
    const { status } = response;
    const said = `answers ${status}: ${this.#quote(text)}`;
    if (PASSING_STATUSES.includes(status)) {
      return new PassingFailure(said, retryAfterMs(response.headers.get('retry-after')));
    }
    const isDenied = status === 401 || status === 403;
    const advice = isDenied ? '. Set WELDLINE_ENDPOINT_KEY to a key that it accepts' : '';
    return this.#failure(path, model, said + advice);
  }

  /** What a server says of an error, on one line. It may repeat the key that it was given. */
  #quote(text: string): string {
    const { key } = this.#options;
    const message = /"message"\s*:\s*"((?:[^"\\]|\\.)*)"/.exec(text)?.[1] ?? text;
    const safe = key === undefined ? message : message.replaceAll(key.reveal(), '[secret]');
    return safe.replace(/\s+/g, ' ').trim().slice(0, QUOTE_LENGTH_MAX) || 'nothing';
  }

  #failure(path: string, model: string, problem: string, cause?: unknown): WeldlineError {
    return new WeldlineError(
      'evaluate.endpoint-failed',
      `The endpoint ${this.#options.url}${path} (model "${model}") ${problem}.`,
      { cause },
    );
  }
}

async function readText(response: Response, onChunk: () => void): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of response.body ?? []) {
    onChunk();
    text += decoder.decode(chunk, { stream: true });
    if (text.length > RESPONSE_LENGTH_MAX) throw new PassingFailure('answers without end');
  }
  return text + decoder.decode();
}

/** Seconds, or a date; undefined where there is none or it makes no sense. */
function retryAfterMs(header: string | null): number | undefined {
  if (header === null) return undefined;
  const seconds = /^\d+$/.test(header.trim())
    ? Number(header)
    : (Date.parse(header) - Date.now()) / 1000;
  if (!Number.isFinite(seconds)) return undefined;
  return Math.min(Math.max(seconds * 1000, 0), RETRY_AFTER_MAX_MS);
}
