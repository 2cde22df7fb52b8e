import { connect as connectPlain, isIP, type Socket } from 'node:net';
import { connect as connectSecure } from 'node:tls';
import type { TemporalTarget } from '../config/temporal-connection.ts';
import { WeldlineError } from '../engine/errors.ts';

/** Reaching a server over the sea takes a quarter of a second; one that is silent this long hangs. */
const PROBE_TIMEOUT_MS = 4_000;

/** RFC 9113, 3.4: the preface, and an empty frame of settings; a server answers with its settings. */
const GREETING = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
]);
const FRAME_TYPE_AT = 3;
const SETTINGS = 4;
const TLS_ALERT = 0x15;

/** What keeps a client from a server. */
export interface ConnectionProblem {
  readonly code: 'temporal.unreachable' | 'temporal.unauthorized';
  /** What the server does, and what to do; "The Temporal server at … " stands before it. */
  readonly text: string;
  /** Trying again does not help, as it may where a server starts or a network comes back. */
  readonly isLasting: boolean;
}

/**
 * Looks at the bytes of a connection, since gRPC only says that a server does not answer in time.
 * @returns undefined if the server greets as gRPC does
 */
export async function findConnectionProblem(
  target: TemporalTarget,
): Promise<ConnectionProblem | undefined> {
  const greeting = await greet(target);
  if (greeting instanceof Error) return ofError(greeting);
  if (greeting[FRAME_TYPE_AT] === SETTINGS) return undefined;
  if (target.tls === undefined && (greeting.length === 0 || greeting[0] === TLS_ALERT)) {
    return lasting(
      'takes no connection without TLS. Set TEMPORAL_TLS=true, or tls of the profile.',
    );
  }
  if (greeting.length > 0) {
    return lasting('is another kind of server. Correct TEMPORAL_ADDRESS or the profile.');
  }
  return refused('It closes the connection');
}

export function problemError(
  { address }: TemporalTarget,
  { code, text }: ConnectionProblem,
  cause?: unknown,
): WeldlineError {
  return new WeldlineError(code, `The Temporal server at ${address} ${text}`, { cause });
}

/** @returns what the server says first, nothing if it closes the connection, or what fails */
function greet({ address, tls }: TemporalTarget): Promise<Buffer | Error> {
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
  const place = { host, port: Number(address.slice(colon + 1)) };
  const { serverNameOverride: name = isIP(host) === 0 ? host : '' } = tls ?? {};
  const pair = tls?.clientCertPair;
  return new Promise((resolve) => {
    const socket: Socket =
      tls === undefined
        ? connectPlain(place)
        : connectSecure({
            ...place,
            ALPNProtocols: ['h2'],
            ...(name !== '' && { servername: name }),
            ...(tls.serverRootCACertificate && { ca: Buffer.from(tls.serverRootCACertificate) }),
            ...(pair && { cert: Buffer.from(pair.crt), key: Buffer.from(pair.key) }),
          });
    const end = (result: Buffer | Error): void => {
      resolve(result);
      socket.destroy();
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => end(new Error('it says nothing')));
    socket.on('error', end);
    socket.on('close', () => end(Buffer.alloc(0)));
    socket.once('data', end);
    socket.write(GREETING);
  });
}

/** By the codes of Node and OpenSSL. */
function ofError(error: Error): ConnectionProblem {
  const { code = '', message } = error as NodeJS.ErrnoException;
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID') {
    return lasting(`shows a certificate that is not valid today (${message}). Renew it there.`);
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return lasting(
      'shows a certificate with another name. If it is the right server, set ' +
        'TEMPORAL_TLS_SERVER_NAME, or server_name of the profile, to the name in it.',
    );
  }
  // OpenSSL says `407DE…:error:0A00045C:SSL routines:ssl3_read_bytes:tlsv13 alert certificate required:…`.
  const alert = /[^:]*\balert [^:]*/.exec(message)?.[0];
  if (alert !== undefined) return refused(`It sends the ${alert}`);
  if (code === 'EPROTO' || code.startsWith('ERR_SSL')) {
    return lasting('speaks no TLS. Set TEMPORAL_TLS=false, or correct the address.');
  }
  if (/CERT|SIGNATURE|CRL|CA$/.test(code)) {
    return lasting(
      `shows a certificate that nobody here vouches for (${message}). Set ` +
        'TEMPORAL_TLS_SERVER_CA_CERT_PATH, or server_ca_cert_path of the profile, to its authority.',
    );
  }
  return {
    code: 'temporal.unreachable',
    text:
      `does not answer (${code || message}). Start it, correct TEMPORAL_ADDRESS or the profile, or ` +
      'unset them to use the embedded server.',
    isLasting: false,
  };
}

function lasting(text: string): ConnectionProblem {
  return { code: 'temporal.unreachable', text, isLasting: true };
}

function refused(how: string): ConnectionProblem {
  return {
    code: 'temporal.unauthorized',
    text:
      'lets nobody in without a client certificate that it knows, as it seems. ' +
      `${how}. Set TEMPORAL_TLS_CLIENT_CERT_PATH and ` +
      'TEMPORAL_TLS_CLIENT_KEY_PATH, or client_cert_path and client_key_path of the profile.',
    isLasting: true,
  };
}
