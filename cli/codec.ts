import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import proto from '@temporalio/proto';
import { readEnvironment } from '../config/environment.ts';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { EncryptionCodec } from '../workers/payload-codec.ts';
import { payloadKeysOf } from '../workers/payload-keys.ts';
import { EXIT } from './exit-codes.ts';
import { interruptionSignal } from './interruption.ts';
import type { Output } from './output.ts';

export interface CodecCommand {
  /** Of Temporal's UI: the only pages that may ask. */
  readonly origin: string;
  readonly port?: string;
}

/** What a page of the UI shows of a history: payloads of 2 MB at most, some of them at once. */
const BODY_BYTES_MAX = 64 * 1024 * 1024;

/** Those who can reach it read everything: this machine's users, through the browser named. */
const HOST = '127.0.0.1';
const PORT = 8234;

const { Payloads } = proto.temporal.api.common.v1;

/** `weldline codec`: lets Temporal's UI and CLI show what is encrypted, until it is stopped. */
export async function runCodec(options: CodecCommand, output: Output): Promise<number> {
  const origin = readOrigin(options.origin);
  const environment = readEnvironment();
  if (environment.payloadKeysFile === undefined) {
    throw new WeldlineError(
      'config.invalid',
      'There are no payload keys. Set WELDLINE_PAYLOAD_KEYS to the file that holds them.',
    );
  }
  const keys = payloadKeysOf(environment);
  for (const warning of keys.warnings) output.warn(warning);
  const signal = interruptionSignal();
  const server = await startCodecServer(new EncryptionCodec(keys), origin, readPort(options.port));
  const url = `http://${HOST}:${(server.address() as AddressInfo).port}`;
  output.note(
    `Decoding for ${origin} at ${url}: enter it there as the codec server. Stop with Ctrl-C.`,
  );
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  server.closeAllConnections();
  server.close();
  return EXIT.ok;
}

/** @param port 0 for any that is free */
export function startCodecServer(
  codec: EncryptionCodec,
  origin: string,
  port: number,
): Promise<Server> {
  const server = createServer((request, response) => {
    answer(codec, origin, request, response).catch((error: unknown) => {
      response.destroy(error instanceof Error ? error : undefined);
    });
  });
  return new Promise((resolve, reject) => {
    server.on('error', (cause) => {
      const problem = systemErrorCode(cause) ?? cause.message;
      const message = `The codec cannot listen on ${HOST}:${port} (${problem}). Choose another --port.`;
      reject(new WeldlineError('cli.usage', message, { cause }));
    });
    server.listen(port, HOST, () => resolve(server));
  });
}

/** Temporal's protocol of remote codecs: POST /encode and /decode, `{payloads: […]}` both ways. */
async function answer(
  codec: EncryptionCodec,
  origin: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { method, headers } = request;
  // A browser names the page that asks; other pages of the same person get nothing. The address of
  // another name that leads here (DNS rebinding) is none of ours either.
  const isAllowed = headers.origin === undefined || headers.origin === origin;
  if (!isAllowed || !/^(127\.0\.0\.1|localhost)(:\d+)?$/.test(headers.host ?? '')) {
    return end(response, 403, { error: 'this page may not ask' });
  }
  if (headers.origin !== undefined) {
    response.setHeader('access-control-allow-origin', origin);
    response.setHeader('access-control-allow-methods', 'POST');
    response.setHeader('access-control-allow-headers', 'content-type,x-namespace,authorization');
    response.setHeader('vary', 'origin');
  }
  if (method === 'OPTIONS') return end(response, 204);
  const work = { '/encode': 'encode', '/decode': 'decode' } as const;
  const [path = ''] = (request.url ?? '').split('?');
  if (method !== 'POST' || !(path in work)) return end(response, 404, { error: 'POST /decode' });
  const text = await bodyOf(request);
  if (text === undefined) return end(response, 413, { error: 'too large' });
  try {
    const payloads = Payloads.fromObject(JSON.parse(text)).payloads;
    const done = await codec[work[path as keyof typeof work]](payloads);
    const message = Payloads.fromObject({ payloads: done });
    end(response, 200, Payloads.toObject(message, { bytes: String }));
  } catch (error) {
    // What a parser says may quote what it read.
    end(response, 400, {
      error: error instanceof WeldlineError ? error.message : 'the body holds no payloads',
    });
  }
}

function end(response: ServerResponse, status: number, body?: object): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

async function bodyOf(request: IncomingMessage): Promise<string | undefined> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request) {
    bytes += (piece as Buffer).length;
    if (bytes > BODY_BYTES_MAX) return undefined;
    pieces.push(piece as Buffer);
  }
  return Buffer.concat(pieces).toString('utf8');
}

function readOrigin(value: string): string {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url !== undefined && /^https?:$/.test(url.protocol)) return url.origin;
  throw new WeldlineError(
    'cli.usage',
    `--origin is "${value}", but must be a URL of Temporal's UI.`,
  );
}

function readPort(value = String(PORT)): number {
  const port = /^\d{1,5}$/.test(value) ? Number(value) : 65_536;
  if (port <= 65_535) return port;
  throw new WeldlineError('cli.usage', `--port is "${value}", but must be a port.`);
}
