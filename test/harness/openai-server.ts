import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { Runner } from '../../evaluation/runner.ts';

export interface OpenAiServerOptions {
  /** By the name under which they are served. */
  readonly models: Readonly<Record<string, Runner>>;
  /** Requests need it. */
  readonly key?: string;
  /** Answers a completion itself, and returns true, in place of the model: for what goes wrong. */
  readonly intercept?: (attempt: number, response: ServerResponse) => boolean;
}

export interface OpenAiServer {
  /** `http://127.0.0.1:1234/v1` */
  readonly url: string;
  /** Bodies of the completions that were asked for. */
  readonly requests: readonly Readonly<Record<string, unknown>>[];
  /** Connections that completions are waiting on. */
  readonly open: () => number;
  close(): Promise<void>;
}

/** An OpenAI-compatible server for `/models` and `/completions`, with real models behind it. */
export async function startOpenAiServer(options: OpenAiServerOptions): Promise<OpenAiServer> {
  const requests: Record<string, unknown>[] = [];
  let open = 0;

  async function complete(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = JSON.parse(await text(request)) as Record<string, unknown>;
    requests.push(body);
    if (options.intercept?.(requests.length, response) === true) return;
    const runner = options.models[String(body['model'])];
    if (runner === undefined) return fail(response, 404, `no model ${body['model']}`);
    const abort = new AbortController();
    response.on('close', () => abort.abort());
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const asked = {
      index: 0,
      prompt: String(body['prompt']),
      addSpecialTokens: body['add_special_tokens'] !== false,
      newTokensMax: Number(body['max_tokens']),
    };
    for await (const answer of runner.answer([asked], abort.signal)) {
      // In pieces, as a server that generates it would.
      for (const piece of answer.text.match(/.{1,4}/gsu) ?? []) send(response, piece, null);
    }
    send(response, '', 'stop');
    response.end('data: [DONE]\n\n');
  }

  const server = createServer((request, response) => {
    open++;
    response.on('close', () => open--);
    if (options.key !== undefined && request.headers.authorization !== `Bearer ${options.key}`) {
      return fail(response, 401, `the key ${request.headers.authorization} is not valid`);
    }
    if (request.url === '/v1/models') {
      const data = Object.keys(options.models).map((id) => ({ id, object: 'model' }));
      response.end(JSON.stringify({ object: 'list', data }));
      return;
    }
    complete(request, response).catch((error: Error) =>
      response.headersSent ? response.destroy() : fail(response, 400, error.message),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    requests,
    open: () => open,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function send(response: ServerResponse, piece: string, finish: 'stop' | null): void {
  const choices = [{ index: 0, text: piece, finish_reason: finish }];
  response.write(`data: ${JSON.stringify({ object: 'text_completion', choices })}\n\n`);
}

function fail(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ error: { message, type: 'invalid_request_error' } }));
}
