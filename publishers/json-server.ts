import type { z } from 'zod';
import { WeldlineError } from '../engine/errors.ts';
import { httpRequest } from '../remote/http.ts';
import { codeOfStatus, type Patience } from './publisher.ts';

/** Lists of models and their metadata have some megabytes at most. */
const ANSWER_BYTES_MAX = 64 << 20;

export interface JsonRequest {
  readonly method: string;
  /** Relative to the server's address. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Sent as JSON, or as it is. */
  readonly body?: Readonly<Record<string, unknown>> | (() => AsyncIterable<Uint8Array>);
  readonly headers?: Readonly<Record<string, string>>;
  /** What it is about, for errors: "the model support". */
  readonly what: string;
  readonly accept?: readonly number[];
  /** Attempts; fewer for what must not be done twice. */
  readonly attemptsMax?: number;
}

/** A server that answers requests about models with JSON, as Ollama and MLflow do. */
export class JsonServer {
  /** Address without credentials. */
  readonly origin: string;
  readonly #url: URL;
  readonly #authorization: string | undefined;
  readonly #patience: Patience;
  readonly #remedy: string;

  /**
   * @param options.address may hold a user and a password, as proxies before such servers want them
   * @param options.authorization header; the address's own if absent
   * @param options.remedy what to do where something else than this server answers
   */
  constructor(options: {
    readonly address: string;
    readonly authorization?: string | undefined;
    readonly patience: Patience;
    readonly remedy: string;
  }) {
    const url = new URL(options.address.replace(/\/*$/, '/'));
    const { username, password } = url;
    const own =
      username === '' && password === ''
        ? undefined
        : basicAuthorization(decodeURIComponent(username), decodeURIComponent(password));
    url.username = '';
    url.password = '';
    url.search = '';
    this.#url = url;
    this.origin = url.href.replace(/\/$/, '');
    this.#authorization = options.authorization ?? own;
    this.#patience = options.patience;
    this.#remedy = options.remedy;
  }

  /** The caller reads or cancels the answer's body. */
  ask(request: JsonRequest, signal: AbortSignal): Promise<Response> {
    const { method, path, query = {}, body, headers, what, accept } = request;
    const url = new URL(path, this.#url);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    const isJson = typeof body === 'object';
    const sent = isJson ? JSON.stringify(body) : body;
    return httpRequest({
      ...{ method, url, signal, codeOf },
      ...(sent !== undefined && { body: sent }),
      headers: {
        ...(isJson && { 'content-type': 'application/json' }),
        ...(this.#authorization !== undefined && { authorization: this.#authorization }),
        ...headers,
      },
      ...(accept && { accept }),
      patience: {
        ...this.#patience,
        attemptsMax: Math.min(request.attemptsMax ?? Infinity, this.#patience.attemptsMax),
      },
      name: `${this.origin}, ${what}`,
    });
  }

  /** @throws WeldlineError `publish.rejected` for an answer of another shape */
  async read<T>(response: Response, schema: z.ZodType<T>): Promise<T> {
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    for await (const piece of response.body ?? []) {
      pieces.push(piece);
      bytes += piece.byteLength;
      if (bytes > ANSWER_BYTES_MAX) break;
    }
    try {
      return schema.parse(JSON.parse(Buffer.concat(pieces).toString('utf8')));
    } catch (error) {
      throw new WeldlineError('publish.rejected', `${this.origin} ${this.#remedy}`, {
        cause: error,
      });
    }
  }

  /** @returns undefined if the answer is one of the statuses that are accepted */
  async get<T>(
    request: JsonRequest,
    schema: z.ZodType<T>,
    signal: AbortSignal,
  ): Promise<T | undefined> {
    const response = await this.ask(request, signal);
    if (response.ok) return this.read(response, schema);
    await response.body?.cancel();
    return undefined;
  }
}

export function basicAuthorization(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** These servers say what conflicts are in other ways: such a status is somebody else's. */
function codeOf(status: number): WeldlineError['code'] {
  return status === 409 || status === 412 ? 'publish.rejected' : codeOfStatus(status);
}
