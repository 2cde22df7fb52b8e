import { z } from 'zod';
import { WeldlineError } from '../../engine/errors.ts';
import { JsonServer } from '../json-server.ts';
import type { Patience } from '../publisher.ts';

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
const REMEDY =
  'does not answer as Ollama does. Check the endpoint (OLLAMA_HOST, or endpoint in the recipe); ' +
  'weldline knows Ollama from 0.5.5 on.';

/**
 * Ollama's API (docs/api.md in its repository), as of 0.17.
 * Errors: `publish.*`; a name that is not there is an answer.
 */
export class OllamaClient {
  readonly #server: JsonServer;

  constructor(endpoint: string, patience: Patience) {
    this.#server = new JsonServer({ address: endpoint, patience, remedy: REMEDY });
  }

  /** Without credentials. */
  get origin(): string {
    return this.#server.origin;
  }

  async show(model: string, signal: AbortSignal): Promise<OllamaModel | undefined> {
    const request = { method: 'POST', path: 'api/show', body: { model }, accept: [404] };
    const found = await this.#server.get({ ...request, what: whatOf(model) }, shown, signal);
    if (found === undefined) return undefined;
    const { modelfile, ...rest } = found;
    return { ...rest, weights: WEIGHTS_LINE.exec(modelfile)?.[1] };
  }

  /** Names of all models, with their tags. */
  async list(signal: AbortSignal): Promise<readonly string[]> {
    const request = { method: 'GET', path: 'api/tags', what: 'the list of models' };
    const found = await this.#server.get(request, listed, signal);
    return (found?.models ?? []).map(({ name }) => name);
  }

  async hasBlob(sha256: string, signal: AbortSignal): Promise<boolean> {
    const request = { method: 'HEAD', path: `api/blobs/sha256:${sha256}`, accept: [404] };
    const response = await this.#server.ask({ ...request, what: `blob ${sha256}` }, signal);
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
    const path = `api/blobs/sha256:${file.sha256}`;
    const request = { method: 'POST', path, body, headers, what: file.path };
    await (await this.#server.ask(request, signal)).body?.cancel();
  }

  /** Makes a model, in place of one that has the name. */
  async create(model: CreateModel, signal: AbortSignal): Promise<void> {
    // Streamed, an answer that begins well can end with an error; so it has one status.
    const body = { ...model, stream: false };
    const request = { method: 'POST', path: 'api/create', body, what: whatOf(model.model) };
    const answer = await this.#server.get(request, created, signal);
    if (answer?.status === 'success') return;
    throw new WeldlineError(
      'publish.rejected',
      `${this.origin} made no model ${model.model}: it says "${answer?.status.slice(0, 200)}". Look ` +
        "at Ollama's log.",
    );
  }

  /** Idempotent. */
  async remove(model: string, signal: AbortSignal): Promise<void> {
    const request = { method: 'DELETE', path: 'api/delete', body: { model }, accept: [404] };
    await (await this.#server.ask({ ...request, what: whatOf(model) }, signal)).body?.cancel();
  }
}

function whatOf(model: string): string {
  return `the model ${model}`;
}
