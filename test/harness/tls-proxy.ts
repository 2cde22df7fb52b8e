/** Stands before a Temporal server as that of an operator or a cloud does: TLS, and who may enter. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import {
  connect,
  constants,
  createSecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { runServicesPython } from '../services-python.ts';

const PYTHON = join(import.meta.dirname, 'make_certificates.py');

/** The only name in the certificates of {@link makeCertificates}. */
export const SERVER_NAME = 'temporal.test';

/**
 * Writes `<name>.pem` and `<name>.key` of ca, server, client, other-ca, other-client (of other-ca),
 * expired-server and expired-client into a directory.
 */
export async function makeCertificates(directory: string): Promise<void> {
  await runServicesPython(PYTHON, { directory });
}

export interface TlsProxy {
  /** `127.0.0.1:<port>` */
  readonly address: string;
  /** The headers of each request that came. */
  readonly requests: readonly IncomingHttpHeaders[];
  close(): Promise<void>;
}

export interface TlsProxyOptions {
  /** Where the certificates are. */
  readonly certificates: string;
  /** Name of its own certificate. */
  readonly certificate?: string;
  /** Whether clients must have a certificate of the authority. */
  readonly mutual?: boolean;
  /** The only key that lets a request in. */
  readonly apiKey?: string;
}

/** @param upstream `host:port` of a Temporal server without TLS */
export async function startTlsProxy(upstream: string, options: TlsProxyOptions): Promise<TlsProxy> {
  const { certificates, certificate = 'server', mutual = false, apiKey } = options;
  const read = (file: string): Buffer => readFileSync(join(certificates, file));
  const server = createSecureServer({
    cert: read(`${certificate}.pem`),
    key: read(`${certificate}.key`),
    ca: read('ca.pem'),
    requestCert: mutual,
    rejectUnauthorized: mutual,
  });
  const onwards = connect(`http://${upstream}`);
  const requests: IncomingHttpHeaders[] = [];
  const sessions = new Set<ServerHttp2Session>();
  server.on('session', (session) => {
    sessions.add(session);
    session.on('error', () => undefined);
    session.on('close', () => sessions.delete(session));
  });
  server.on('stream', (stream, headers) => {
    requests.push(headers);
    stream.on('error', () => undefined);
    if (apiKey !== undefined && headers.authorization !== `Bearer ${apiKey}`) deny(stream);
    else forward(stream, headers, onwards.request(forwarded(headers)));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    async close() {
      server.close();
      for (const session of sessions) session.destroy();
      onwards.destroy();
    },
  };
}

function deny(stream: ServerHttp2Stream): void {
  const { UNAUTHENTICATED } = { UNAUTHENTICATED: '16' };
  stream.respond(
    {
      ':status': 200,
      'content-type': 'application/grpc',
      'grpc-status': UNAUTHENTICATED,
      'grpc-message': 'Request unauthorized.',
    },
    { endStream: true },
  );
}

function forwarded(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const { ':authority': _authority, ':scheme': _scheme, ...rest } = headers;
  return rest;
}

/** A call of gRPC: what it is answered, with the trailers that say how it ended. */
function forward(
  stream: ServerHttp2Stream,
  _headers: IncomingHttpHeaders,
  call: ReturnType<ReturnType<typeof connect>['request']>,
): void {
  let trailers: IncomingHttpHeaders = {};
  call.on('error', () => stream.close(constants.NGHTTP2_INTERNAL_ERROR));
  call.on('trailers', (last) => {
    trailers = last;
  });
  call.on('response', ({ ':status': status, ...answer }) => {
    if (stream.destroyed) return;
    const isLast = answer['grpc-status'] !== undefined;
    stream.respond(
      { ':status': status, ...answer },
      { endStream: isLast, waitForTrailers: !isLast },
    );
    if (isLast) return;
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    call.pipe(stream);
  });
  stream.on('close', () => call.close(constants.NGHTTP2_CANCEL));
  stream.pipe(call);
}
