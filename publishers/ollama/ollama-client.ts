import { z } from 'zod';
import { WeldlineError } from '../../engine/errors.ts';
import { httpRequest } from '../../remote/http.ts';
import { codeOfStatus, type Patience } from '../publisher.ts';

/** What Ollama says of a model. */
export interface OllamaModel {
  /** SHA-256 of its weights, hex; undefined where they are in no file of their own. */
  readonly weights: string | undefined;
  /** Go template. */
  readonly template: string;
  readonly system: string;
  /** All texts of licences, one behind the other. */
  readonly license: string;
}

export interface CreateModel {
  readonly model: string;
  /** Name → `sha256:…` of what was sent before. */
  readonly files?: Readonly<Record<string, string>>;
  /** Another model whose parts it takes. */
  readonly from?: string;
  readonly template?: string;
  readonly system?: string;
  readonly parameters?: Readonly<Record<string, unknown>>;
  /** Stand behind those of `from`. */
  readonly license?: readonly string[];
}

const shown = z.object({
  modelfile: z.string(),
  template: z.string().default(''),
  system: z.string().default(''),
  license: z.string().default(''),
});
const listed = z.object({ models: z.array(z.object({ name: z.string() })).nullable() });
const created = z.object({ status: z.string() });
/** Where Ollama keeps the weights: `FROM /…/blobs/sha256-<hex>`. */
const WEIGHTS_LINE = /^FROM .*[/\\]sha256-([0-9a-f]{64})$/m;
/** A model's licences, templates and metadata; lists of tokens are not among them. */
const ANSWER_BYTES_MAX = 64 << 20;

/**
 * Ollama's API (docs/api.md in its repository), as of 0.17.
 * Errors: `publish.*`; a name that is not there is an answer.
 */
export class OllamaClient {
  /** Without credentials. */
  readonly origin: string;
  readonly #url: URL;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #patience: Patience;

  /** @param endpoint may hold a user and a password of a proxy before Ollama */
  constructor(endpoint: string, patience: Patience) {
    const url = new URL(endpoint.endsWith('/') ? endpoint : `${endpoint}/`);
    const { username, password } = url;
    const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    this.#headers =
      username === '' && password === ''
        ? {}
        : { authorization: `Basic ${Buffer.from(credentials).toString('base64')}` };
    url.username = '';
    url.password = '';
    this.#url = url;
    this.origin = url.href.replace(/\/$/, '');
    this.#patience = patience;
  }

  async show(model: string, signal: AbortSignal): Promise<OllamaModel | undefined> {
    const response = await this.#post('show', { model }, `the model ${model}`, signal, [404]);
    if (response.status === 404) {
      await response.body?.cancel();
      return undefined;
    }
    const { modelfile, ...rest } = await readAnswer(response, shown, this.origin);
    return { ...rest, weights: WEIGHTS_LINE.exec(modelfile)?.[1] };
  }

  /** Names of all models, with their tags. */
  async list(signal: AbortSignal): Promise<readonly string[]> {
    const response = await this.#ask('GET', 'tags', 'the list of models', signal);
    const { models } = await readAnswer(response, listed, this.origin);
    return (models ?? []).map(({ name }) => name);
  }

  async hasBlob(sha256: string, signal: AbortSignal): Promise<boolean> {
    const what = `blob ${sha256.slice(0, 12)}`;
    const response = await this.#ask('HEAD', `blobs/sha256:${sha256}`, what, signal, {
      accept: [404],
    });
    return response.status !== 404;
  }

  /**
   * Sends a file, which Ollama compares with its digest.
   * @param body of `size` bytes, made anew for each attempt; what it throws is thrown
   */
  async sendBlob(
    file: { readonly path: string; readonly sha256: string; readonly size: number },
    body: () => AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    const headers = { 'content-length': String(file.size) };
    const options = { body, headers };
    const path = `blobs/sha256:${file.sha256}`;
    const response = await this.#ask('POST', path, file.path, signal, options);
    await response.body?.cancel();
  }

  /** Makes a model, in place of one that has the name. */
  async create(model: CreateModel, signal: AbortSignal): Promise<void> {
    // Streamed, an answer that begins well can end with an error; so it has one status.
    const body = { ...model, stream: false };
    const response = await this.#post('create', body, `the model ${model.model}`, signal);
    const { status } = await readAnswer(response, created, this.origin);
    if (status === 'success') return;
    throw new WeldlineError(
      'publish.rejected',
      `${this.origin} made no model ${model.model}: it says "${status.slice(0, 200)}". Look at ` +
        "Ollama's log.",
    );
  }

  /** Idempotent. */
  async remove(model: string, signal: AbortSignal): Promise<void> {
    const body = JSON.stringify({ model });
    const what = `the model ${model}`;
    const response = await this.#ask('DELETE', 'delete', what, signal, { body, accept: [404] });
    await response.body?.cancel();
  }

  #post(
    path: string,
    body: object,
    what: string,
    signal: AbortSignal,
    accept: readonly number[] = [],
  ): Promise<Response> {
    return this.#ask('POST', path, what, signal, { body: JSON.stringify(body), accept });
  }

  #ask(
    method: string,
    path: string,
    what: string,
    signal: AbortSignal,
    options: {
      readonly body?: string | (() => AsyncIterable<Uint8Array>);
      readonly headers?: Readonly<Record<string, string>>;
      readonly accept?: readonly number[];
    } = {},
  ): Promise<Response> {
    return httpRequest({
      ...options,
      ...{ method, signal, patience: this.#patience },
      url: new URL(`api/${path}`, this.#url),
      headers: { ...this.#headers, ...options.headers },
      name: `${this.origin}, ${what}`,
      // Ollama knows no conflicts: whoever answers so is not Ollama.
      codeOf: (status) =>
        status === 409 || status === 412 ? 'publish.rejected' : codeOfStatus(status),
    });
  }
}

async function readAnswer<T>(response: Response, schema: z.ZodType<T>, origin: string): Promise<T> {
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
    throw new WeldlineError(
      'publish.rejected',
      `${origin} does not answer as Ollama does. Check the endpoint (OLLAMA_HOST, or endpoint in the ` +
        'recipe); weldline knows Ollama from 0.5.5 on.',
      { cause: error },
    );
  }
}
