import { request as forwardRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { finished } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { closeServer, listen, originOf } from '../hub-server/listen.ts';

/** A way in which a server, or the network before it, fails. */
export type ProxyFaultKind =
  /** The connection is cut after `afterBytes` of the request's body went through; at once without. */
  | 'drop-request'
  /** The server has done it; the connection is cut before its answer is passed on. */
  | 'drop-answer'
  /** Answered with `status` and never passed on. */
  | 'status'
  /** Passed on and done; then answered with `status` all the same. */
  | 'status-after'
  /** Passed on; the answer comes after `delayMs`, or once `until` is settled. */
  | 'slow'
  /** Taken, never passed on and never answered. The connection stays open. */
  | 'stall';

export interface ProxyFault {
  readonly kind: ProxyFaultKind;
  /** Only requests with such a method and such a path (with its query); all without them. */
  readonly method?: RegExp;
  readonly path?: RegExp;
  /** Requests that match, and that no earlier fault hits, before the first that this one hits. */
  readonly skip?: number;
  /** How many are hit; one if not given, `Infinity` for all. */
  readonly times?: number;
  /** A number, or half of what the request says that it has. */
  readonly afterBytes?: number | 'half';
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly delayMs?: number;
  readonly until?: Promise<unknown>;
}

/** A request as it went by. */
export interface SeenRequest {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  /** By the monotonic clock, milliseconds. */
  readonly at: number;
  /** Of its body that arrived here, whatever became of it. */
  bytes: number;
  /** What the client was answered; undefined while it waits or was cut off. */
  status?: number;
  /** What was done to it. */
  readonly fault?: ProxyFaultKind;
}

/** Requests that change something at a server. */
export const MUTATING = /^(POST|PUT|PATCH|DELETE)$/;

/**
 * Stands before a real HTTP server on the loopback interface, counts what goes by, and fails as it
 * is told.
 *
 * The client's `Host` is passed on, since S3 signs it and registries make addresses of it; where a
 * server names its own origin all the same (`Location`, `Link`, JSON), that is replaced by the proxy's.
 */
export interface FaultyProxy {
  /** `http://127.0.0.1:<port>`. */
  readonly origin: string;
  /** All since the last `clear`, in the order of their arrival. */
  readonly requests: readonly SeenRequest[];
  /** Adds a fault; of several that match a request, the first that is due hits it. */
  fail(fault: ProxyFault): void;
  /** Passes the first request that matches on and keeps its answer. @returns gives it */
  hold(matching: Pick<ProxyFault, 'method' | 'path' | 'skip'>): () => void;
  /** Forgets faults. */
  calm(): void;
  /** Forgets faults and requests. */
  clear(): void;
  /** Bytes of request bodies, of all requests or those whose `METHOD path` matches. */
  uploadedBytes(matching?: RegExp): number;
  close(): Promise<void>;
}

/** @param upstream origin of the real server */
export async function startFaultyProxy(upstream: string): Promise<FaultyProxy> {
  const requests: SeenRequest[] = [];
  const faults: { fault: ProxyFault; skip: number; left: number }[] = [];

  function take(method: string, path: string): ProxyFault | undefined {
    for (const entry of faults) {
      const { fault } = entry;
      if (entry.left <= 0) continue;
      if (fault.method?.test(method) === false || fault.path?.test(path) === false) continue;
      if (entry.skip > 0) {
        entry.skip -= 1;
        continue;
      }
      entry.left -= 1;
      return fault;
    }
    return undefined;
  }

  const server = await listen(0, async (request, response) => {
    const { method = 'GET', url: path = '/' } = request;
    const fault = take(method, path);
    const seen: SeenRequest = {
      ...{ method, path, at: performance.now(), bytes: 0 },
      ...(fault && { fault: fault.kind }),
    };
    requests.push(seen);
    request.on('data', (piece: Buffer) => {
      seen.bytes += piece.length;
    });
    request.pause();
    const passage = { request, response, seen, upstream, origin: originOf(server) };
    await pass(passage, fault).catch(() => request.socket.destroy());
  });
  // A stalled request waits for the client to lose patience, not for the server to.
  server.requestTimeout = 0;
  return {
    origin: originOf(server),
    requests,
    fail: (fault) => faults.push({ fault, skip: fault.skip ?? 0, left: fault.times ?? 1 }),
    hold(matching) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const fault: ProxyFault = { kind: 'slow', ...matching, until: promise };
      faults.push({ fault, skip: fault.skip ?? 0, left: 1 });
      return resolve;
    },
    calm: () => {
      faults.length = 0;
    },
    clear: () => {
      faults.length = 0;
      requests.length = 0;
    },
    uploadedBytes: (matching = /^/) =>
      requests
        .filter(({ method, path }) => matching.test(`${method} ${path}`))
        .reduce((sum, { bytes }) => sum + bytes, 0),
    close: () => closeServer(server),
  };
}

interface Passage {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly seen: SeenRequest;
  readonly upstream: string;
  readonly origin: string;
}

async function pass(passage: Passage, fault: ProxyFault | undefined): Promise<void> {
  const { request, response, seen } = passage;
  if (fault?.kind === 'stall') {
    request.resume();
    return;
  }
  if (fault?.kind === 'status') {
    request.resume();
    await finished(request);
    answer(passage, fault);
    return;
  }
  const arrived = await forward(passage, fault);
  if (arrived === undefined || fault?.kind === 'drop-answer') {
    request.socket.destroy();
    return;
  }
  if (fault?.kind === 'status-after') {
    answer(passage, fault);
    return;
  }
  if (fault?.kind === 'slow') await (fault.until ?? sleep(fault.delayMs ?? 100));
  seen.status = arrived.status;
  response.writeHead(arrived.status, arrived.headers);
  response.end(arrived.body);
}

function answer({ response, seen }: Passage, { status = 503, headers, body }: ProxyFault): void {
  seen.status = status;
  response.writeHead(status, headers);
  response.end(body);
}

interface Arrived {
  readonly status: number;
  /** Names and values in turn, as they came: repeated headers stay repeated. */
  readonly headers: string[];
  readonly body: Buffer;
}

/** The answer of the server, whole; undefined if the fault has cut the request. */
function forward(passage: Passage, fault: ProxyFault | undefined): Promise<Arrived | undefined> {
  const { request, response, seen, upstream, origin } = passage;
  return new Promise((resolve, reject) => {
    const { method, url: path } = request;
    const onwards = forwardRequest(new URL(upstream), {
      method,
      path,
      // Both sides keep connections of their own.
      headers: headersWithout(request.rawHeaders, /^(connection|keep-alive|expect)$/i),
      agent: false,
    });
    const cut = (): void => {
      onwards.destroy();
      resolve(undefined);
    };
    onwards.on('error', reject);
    onwards.on('response', async (incoming) => {
      try {
        const pieces: Buffer[] = [];
        for await (const piece of incoming) pieces.push(piece as Buffer);
        resolve(withOrigin(incoming, Buffer.concat(pieces), upstream, origin));
      } catch (error) {
        reject(error);
      }
    });
    response.on('close', () => onwards.destroy());
    const limit = fault?.kind === 'drop-request' ? bytesBeforeCut(request, fault) : Infinity;
    if (limit === 0) return cut();
    request.on('data', (piece: Buffer) => {
      if (seen.bytes >= limit) {
        onwards.write(piece.subarray(0, piece.length - (seen.bytes - limit)), cut);
        request.pause();
      } else if (!onwards.write(piece)) {
        request.pause();
        onwards.once('drain', () => request.resume());
      }
    });
    request.on('end', () => (limit === Infinity ? onwards.end() : cut()));
    request.resume();
  });
}

/** A body of unknown length is cut behind its first byte. */
function bytesBeforeCut({ headers }: IncomingMessage, { afterBytes = 0 }: ProxyFault): number {
  if (afterBytes !== 'half') return afterBytes;
  const length = headers['content-length'];
  return length === undefined ? 1 : Math.floor(Number(length) / 2);
}

/** A server's answer with the proxy in place of the server's own origin. */
function withOrigin(
  incoming: IncomingMessage,
  body: Buffer,
  upstream: string,
  origin: string,
): Arrived {
  const headers = headersWithout(
    incoming.rawHeaders,
    /^(connection|keep-alive|transfer-encoding)$/i,
  ).map((text) => text.replaceAll(upstream, origin));
  const status = incoming.statusCode ?? 502;
  const isJson = incoming.headers['content-type']?.includes('json') === true;
  const text = isJson ? body.toString('utf8') : '';
  if (!text.includes(upstream)) return { status, headers, body };
  const replaced = Buffer.from(text.replaceAll(upstream, origin));
  const length = headers.findIndex((name) => /^content-length$/i.test(name));
  if (length >= 0) headers[length + 1] = String(replaced.length);
  return { status, headers, body: replaced };
}

function headersWithout(raw: readonly string[], names: RegExp): string[] {
  return raw.filter((_, index) => !names.test(raw[index - (index % 2)]!));
}
