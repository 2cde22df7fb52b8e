/** A plain web server over a directory, that fails in the ways that such servers do. */
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join, normalize } from 'node:path';
import { type Fault, FaultList } from '../hub-server/faults.ts';
import { closeServer, listen, originOf } from '../hub-server/listen.ts';
import { sendFile } from '../hub-server/send-file.ts';

export interface WebRequest {
  readonly method: string;
  readonly path: string;
  readonly range: string | undefined;
  bytesSent: number;
}

export interface WebServerOptions {
  readonly root: string;
  /** What answers name a version by. */
  readonly versions?: 'etag' | 'modified' | 'none';
  /** Status of all HEAD requests. */
  readonly headStatus?: number;
  /** Answers unknown paths with a page, as web applications do. */
  readonly fallbackPage?: boolean;
  /** Sends requests for files of `/moved/` to another address. */
  readonly moveTo?: string;
}

export interface WebServer {
  readonly origin: string;
  readonly requests: WebRequest[];
  inject(fault: Omit<Fault, 'target'>): void;
  bytesSent(): number;
  close(): Promise<void>;
}

export async function startWebServer(options: WebServerOptions): Promise<WebServer> {
  const faults = new FaultList();
  const requests: WebRequest[] = [];
  const server = await listen(0, async (request, response, url) => {
    const path = normalize(decodeURIComponent(url.pathname)).slice(1);
    const seen: WebRequest = {
      method: request.method ?? '',
      path,
      range: request.headers.range,
      bytesSent: 0,
    };
    requests.push(seen);
    if (options.moveTo !== undefined && path.startsWith('moved/')) {
      response.writeHead(302, { location: options.moveTo + path.slice('moved'.length) }).end();
      return;
    }
    const fault = request.method === 'GET' ? faults.take('storage', path) : undefined;
    if (fault?.kind === 'status') {
      response.writeHead(fault.status ?? 500, { ...fault.headers }).end();
      return;
    }
    await answer(request, response, { options, path, fault, seen });
  });
  return {
    origin: originOf(server),
    requests,
    inject: (fault) => faults.add({ ...fault, target: 'storage' }),
    bytesSent: () => requests.reduce((sum, { bytesSent }) => sum + bytesSent, 0),
    close: () => closeServer(server),
  };
}

interface Asked {
  readonly options: WebServerOptions;
  readonly path: string;
  readonly fault: Fault | undefined;
  readonly seen: WebRequest;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { options, path, fault, seen }: Asked,
): Promise<void> {
  if (request.method === 'HEAD' && options.headStatus !== undefined) {
    response.writeHead(options.headStatus).end();
    return;
  }
  const absolutePath = join(options.root, path);
  const stats = await stat(absolutePath).catch(() => undefined);
  if (!stats?.isFile()) {
    if (options.fallbackPage) response.writeHead(200, { 'content-type': 'text/html' });
    else response.writeHead(404);
    response.end(options.fallbackPage && request.method === 'GET' ? '<html></html>' : undefined);
    return;
  }
  const headers = await versionHeaders(absolutePath, stats.mtime, options.versions ?? 'etag');
  const wanted = request.headers['if-match'];
  if (wanted !== undefined && wanted !== headers['etag']) {
    response.writeHead(412).end();
    return;
  }
  await sendFile(request, response, {
    absolutePath,
    size: stats.size,
    headers: fault?.kind === 'etag' ? { etag: '"another"' } : headers,
    fault,
    bytesPerSecond: undefined,
    onSent: (bytes) => {
      seen.bytesSent += bytes;
    },
  });
}

async function versionHeaders(
  path: string,
  modified: Date,
  versions: 'etag' | 'modified' | 'none',
): Promise<Record<string, string>> {
  if (versions === 'modified') return { 'last-modified': modified.toUTCString() };
  if (versions === 'none') return {};
  const content = await readFile(path);
  return { etag: `"${createHash('sha1').update(content).digest('hex')}"` };
}
