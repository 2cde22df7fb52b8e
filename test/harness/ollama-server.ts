import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { closeServer, listen, originOf } from '../hub-server/listen.ts';

/** A model as Ollama keeps it: layers that point at blobs, here their texts. */
interface StoredModel {
  /** `sha256:…` of its weights. */
  readonly weights: string;
  readonly template: string;
  readonly system: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly licenses: readonly string[];
}

interface Asked {
  readonly model?: string;
  readonly files?: Readonly<Record<string, string>>;
  readonly from?: string;
  readonly template?: string;
  readonly system?: string;
  readonly parameters?: Readonly<Record<string, unknown>>;
  readonly license?: readonly string[];
}

export interface OllamaServer {
  readonly origin: string;
  /** By name and tag. */
  readonly models: ReadonlyMap<string, StoredModel>;
  /** By `sha256:…`. */
  readonly blobs: ReadonlyMap<string, Buffer>;
  /** The blob of a model's weights. */
  weightsOf(name: string): Buffer | undefined;
  /** Puts a model there that weldline did not make. */
  addForeign(name: string): void;
  clear(): void;
  close(): Promise<void>;
}

const NAME = /^(\w[\w-]{0,79}\/)?\w[\w.-]{0,79}:\w[\w.-]{0,79}$/;

class Refused extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/**
 * Answers as Ollama 0.17.4 does: what weldline asks of it, with its statuses and texts, its rules for
 * names and its removal of blobs that nothing needs. It runs no models.
 */
export async function startOllamaServer(): Promise<OllamaServer> {
  const models = new Map<string, StoredModel>();
  const blobs = new Map<string, Buffer>();

  function prune(): void {
    const needed = new Set([...models.values()].map(({ weights }) => weights));
    for (const digest of blobs.keys()) if (!needed.has(digest)) blobs.delete(digest);
  }

  function create(asked: Asked): void {
    const name = fullName(asked.model);
    models.set(name, made(asked, models, blobs));
  }

  const server = await listen(0, async (request, response) => {
    const { method = 'GET', url = '/' } = request;
    const [, digest] = /^\/api\/blobs\/(.*)$/.exec(url) ?? [];
    try {
      if (digest !== undefined) return await answerBlob(request, response, digest, blobs);
      const body = await bodyOf(request);
      const asked = (body.length > 0 ? JSON.parse(body.toString('utf8')) : {}) as Asked;
      const answers: Readonly<Record<string, () => object | undefined>> = {
        'GET /api/tags': () => ({ models: [...models.keys()].map((name) => ({ name })) }),
        'POST /api/show': () => show(existing(asked.model, models)),
        'POST /api/create': () => {
          create(asked);
          return { status: 'success' };
        },
        'DELETE /api/delete': () => {
          existing(asked.model, models);
          models.delete(fullName(asked.model));
          prune();
          return undefined;
        },
      };
      const answer = answers[`${method} ${url}`];
      if (answer === undefined) throw new Refused(404, '404 page not found');
      send(response, 200, answer());
    } catch (error) {
      if (request.socket.destroyed) return;
      send(response, error instanceof Refused ? error.status : 500, {
        error: (error as Error).message,
      });
    }
  });

  return {
    origin: originOf(server),
    models,
    blobs,
    weightsOf: (name) => blobs.get(models.get(name)?.weights ?? ''),
    addForeign: (name) => {
      const model = {
        template: '',
        system: '',
        parameters: {},
        licenses: ['weldline release: {}'],
      };
      models.set(name, { ...model, weights: `sha256:${'0'.repeat(64)}` });
    },
    clear: () => {
      models.clear();
      blobs.clear();
    },
    close: () => closeServer(server),
  };
}

async function answerBlob(
  request: IncomingMessage,
  response: ServerResponse,
  digest: string,
  blobs: Map<string, Buffer>,
): Promise<void> {
  if (!/^sha256:[0-9a-f]{64}$/.test(digest)) throw new Refused(400, 'invalid digest format');
  if (request.method === 'HEAD') return send(response, blobs.has(digest) ? 200 : 404);
  const bytes = await bodyOf(request);
  const got = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  blobs.set(got, bytes);
  if (got === digest) return send(response, 201);
  throw new Refused(400, `digest mismatch, expected "${digest}", got "${got}"`);
}

function fullName(name = ''): string {
  const full = name.includes(':') ? name : `${name}:latest`;
  if (NAME.test(full)) return full;
  throw new Refused(400, 'invalid model name');
}

function existing(name: string | undefined, models: ReadonlyMap<string, StoredModel>): StoredModel {
  const model = models.get(fullName(name));
  if (model === undefined) throw new Refused(404, `model '${name}' not found`);
  return model;
}

function made(
  asked: Asked,
  models: ReadonlyMap<string, StoredModel>,
  blobs: ReadonlyMap<string, Buffer>,
): StoredModel {
  const { template, system = '', parameters = {}, license = [] } = asked;
  if (asked.from !== undefined) {
    // The real one asks its registry for a model that it has not.
    const base = existing(asked.from, models);
    return { ...base, licenses: [...base.licenses, ...license] };
  }
  const [weights] = Object.values(asked.files ?? {});
  if (weights === undefined) throw new Refused(400, "neither 'from' or 'files' was specified");
  const bytes = blobs.get(weights);
  if (bytes === undefined) throw new Refused(500, `open ${weights}: no such file or directory`);
  if (bytes.toString('latin1', 0, 4) !== 'GGUF') {
    throw new Refused(400, 'supplied file was not in GGUF format');
  }
  if (/\{\{[^}]*$/.test(template ?? '')) throw new Refused(400, 'template error: unclosed action');
  return { weights, template: template ?? '{{ .Prompt }}', system, parameters, licenses: license };
}

function show({ weights, template, system, licenses }: StoredModel): object {
  const modelfile = `# Modelfile generated by "ollama show"\nFROM /models/blobs/${weights.replace(':', '-')}\n`;
  return { modelfile, template, system, license: licenses.join('\n') };
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

function send(response: ServerResponse, status: number, body?: object): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}
