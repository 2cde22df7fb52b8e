/** Connecting to servers that want TLS, certificates and keys, and to what is no such server. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { connectClient } from '../../cli/connect-client.ts';
import type { TemporalTarget } from '../../config/temporal-connection.ts';
import { connect } from '../../workers/connect.ts';
import { findFreePort } from '../../workers/free-port.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import {
  makeCertificates,
  SERVER_NAME,
  startTlsProxy,
  type TlsProxy,
} from '../harness/tls-proxy.ts';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

const CANARY = 'canary-9d20';

let server: TestServer;
let mutual: TlsProxy;
let keyed: TlsProxy;
let expired: TlsProxy;
/** A web server, one that closes every connection, and a port where nobody is. */
let web: Server;
let closing: Server;
let nobody: string;

beforeAll(async () => {
  server = await startTestServer();
  const certificates = server.directory;
  await makeCertificates(certificates);
  mutual = await startTlsProxy(server.address, { certificates, mutual: true });
  keyed = await startTlsProxy(server.address, { certificates, apiKey: CANARY });
  expired = await startTlsProxy(server.address, { certificates, certificate: 'expired-server' });
  web = await listening(createHttpServer((_request, response) => response.end('hello')));
  closing = await listening(createServer((socket) => socket.destroy()));
  nobody = `127.0.0.1:${await findFreePort()}`;
});
afterAll(async () => {
  for (const proxy of [mutual, keyed, expired]) await proxy.close();
  for (const each of [web, closing]) each.close();
  await server.stop();
});

async function listening(other: Server): Promise<Server> {
  other.listen(0, '127.0.0.1');
  await once(other, 'listening');
  return other;
}

function addressOf(other: Server): string {
  return `127.0.0.1:${(other.address() as AddressInfo).port}`;
}

const pem = (name: string): Buffer => readFileSync(join(server.directory, name));

interface Identity {
  readonly client?: string;
  readonly authority?: string;
  readonly serverName?: string | undefined;
  readonly apiKey?: string;
  readonly namespace?: string;
}

function target(address: string, identity: Identity = {}): TemporalTarget {
  const { client, authority = 'ca', apiKey, namespace = 'default' } = identity;
  const { serverName } = { serverName: SERVER_NAME, ...identity };
  return {
    address,
    namespace,
    ...(apiKey === undefined ? {} : { apiKey }),
    tls: {
      serverRootCACertificate: pem(`${authority}.pem`),
      ...(serverName === undefined ? {} : { serverNameOverride: serverName }),
      ...(client && { clientCertPair: { crt: pem(`${client}.pem`), key: pem(`${client}.key`) } }),
    },
  };
}

const plain = (address: string): TemporalTarget => ({ address, namespace: 'default' });

/** Both kinds of connection: that of commands, and that of workers. */
async function connectBoth({ address, namespace, ...options }: TemporalTarget): Promise<void> {
  await (await connectClient({ address, namespace, ...options })).close();
  await (await connect(address, options)).close();
}

async function failures({ address, namespace, ...options }: TemporalTarget): Promise<unknown[]> {
  return Promise.all(
    [connectClient({ address, namespace, ...options }), connect(address, options)].map((attempt) =>
      attempt.then(
        () => 'connected',
        (error: unknown) => error,
      ),
    ),
  );
}

describe('a server behind TLS', () => {
  it('lets in who shows a certificate, or a key in the header of each request', async () => {
    await connectBoth(target(mutual.address, { client: 'client' }));
    await connectBoth(target(keyed.address, { apiKey: CANARY }));
    expect(new Set(keyed.requests.map(({ authorization }) => authorization))).toEqual(
      new Set([`Bearer ${CANARY}`]),
    );
  });

  it.each<[string, () => TemporalTarget, string, RegExp]>([
    ['no client certificate', () => target(mutual.address), 'unauthorized', /CLIENT_CERT_PATH/],
    [
      'a client certificate of another authority',
      () => target(mutual.address, { client: 'other-client' }),
      'unauthorized',
      /client certificate that it knows/,
    ],
    [
      'a client certificate that has expired',
      () => target(mutual.address, { client: 'expired-client' }),
      'unauthorized',
      /client certificate that it knows/,
    ],
    [
      'another authority for the server',
      () => target(mutual.address, { client: 'client', authority: 'other-ca' }),
      'unreachable',
      /nobody here vouches for .*TEMPORAL_TLS_SERVER_CA_CERT_PATH/,
    ],
    [
      'the address for the name of the server',
      () => target(mutual.address, { client: 'client', serverName: undefined }),
      'unreachable',
      /another name.*TEMPORAL_TLS_SERVER_NAME/,
    ],
    [
      'a server whose certificate has expired',
      () => target(expired.address),
      'unreachable',
      /not valid today \(certificate has expired\)/,
    ],
    ['no TLS', () => plain(mutual.address), 'unreachable', /without TLS\. Set TEMPORAL_TLS=true/],
    ['TLS to a server without', () => target(server.address), 'unreachable', /speaks no TLS/],
    [
      'a wrong key',
      () => target(keyed.address, { apiKey: `wrong-${CANARY}` }),
      'unauthorized',
      /TEMPORAL_API_KEY/,
    ],
  ])('does not let in who has %s, and it is said why', async (_what, of, code, problem) => {
    for (const error of await failures(of())) {
      expect(error).toMatchObject({
        code: `temporal.${code}`,
        message: expect.stringMatching(problem),
      });
      expect(inspect(error, { depth: 9 })).not.toContain(CANARY);
    }
  });
});

describe('what is no Temporal server', () => {
  it.each<[string, () => TemporalTarget, RegExp]>([
    ['a web server', () => plain(addressOf(web)), /is another kind of server/],
    ['a port that closes', () => plain(addressOf(closing)), /without TLS/],
  ])('%s is told at once', async (_what, of, problem) => {
    for (const error of await failures(of())) {
      expect(error).toMatchObject({
        code: 'temporal.unreachable',
        message: expect.stringMatching(problem),
      });
    }
  });

  it('is told where nobody listens, once there was time to come back', async () => {
    await expect(connectClient(plain(nobody), { timeoutMs: 2_000 })).rejects.toMatchObject({
      code: 'temporal.unreachable',
      message: `The Temporal server at ${nobody} does not answer (ECONNREFUSED). Start it, correct TEMPORAL_ADDRESS or the profile, or unset them to use the embedded server.`,
    });
  });

  it('nor is a namespace that is not there', async () => {
    await expect(
      connectClient({ ...plain(server.address), namespace: 'models' }),
    ).rejects.toMatchObject({
      code: 'temporal.namespace-not-found',
      message: expect.stringMatching(/no namespace models .* create it: temporal operator/),
    });
  });
});
