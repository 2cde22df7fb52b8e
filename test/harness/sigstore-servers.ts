/** A Sigstore of one's own: certificate authority, transparency log and timestamps, on loopback. */
import {
  createHash,
  generateKeyPairSync,
  type KeyObject,
  sign,
  X509Certificate,
} from 'node:crypto';
import {
  fulcioHandler,
  initializeCA,
  initializeTLog,
  initializeTSA,
  rekorHandler,
  tsaHandler,
} from '@sigstore/mock';
import { closeServer, listen, originOf } from '../hub-server/listen.ts';

export interface SigstoreServers {
  readonly url: string;
  /** Text of the `trusted_root.json` that believes these servers. */
  readonly trustedRoot: string;
  /** Answers instead, by path; undefined has the servers answer. */
  fault: (path: string) => number | undefined;
  /** Tokens that the job's own server was asked for, with which authorization. */
  readonly tokenRequests: { readonly audience: string | null; readonly authorization: string }[];
  /** What the job's own server gives: the value of its answer. */
  token: unknown;
  close(): Promise<void>;
}

const LOG_URL = 'https://rekor.test';

/** Where a CI job asks for tokens. */
export const TOKEN_PATH = '/token?api-version=2.0';

export async function startSigstore(): Promise<SigstoreServers> {
  const pair = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const ctLog = certificateLog();
  const logKeys = pair();
  // Whole seconds, since the mock writes fractions that end in zeros, which no parser takes; and
  // some minutes ahead, since its roots are valid from when they are made.
  const clock = new Date(1000 * Math.floor(Date.now() / 1000 + 300));
  const ca = await initializeCA(pair(), ctLog, clock);
  const log = await initializeTLog(LOG_URL, logKeys, clock);
  const tsa = await initializeTSA(pair(), clock);
  const transparency = rekorHandler(log);
  const handlers = [fulcioHandler(ca), transparency, tsaHandler(tsa)];
  const tokenRequests: SigstoreServers['tokenRequests'][number][] = [];
  const server = await listen(0, async (request, response, url) => {
    let body = '';
    for await (const chunk of request) body += String(chunk);
    const status = servers.fault(url.pathname);
    if (status !== undefined) {
      response.writeHead(status).end('{}');
      return;
    }
    if (url.pathname === '/token') {
      const { authorization = '' } = request.headers;
      tokenRequests.push({ audience: url.searchParams.get('audience'), authorization });
      response.end(JSON.stringify({ value: servers.token }));
      return;
    }
    if (url.pathname === '/.well-known/openid-configuration') {
      const endpoint = servers.url;
      response.end(JSON.stringify({ authorization_endpoint: endpoint, token_endpoint: endpoint }));
      return;
    }
    const handler = handlers.find(({ path }) => path === url.pathname);
    const isLog = handler === transparency;
    const bearer = request.headers.authorization?.replace('Bearer ', '');
    const asked = bearer === undefined ? body : withToken(body, bearer);
    const answer = await handler?.fn(isLog ? asLogged(body) : asked);
    response
      .writeHead(answer?.statusCode ?? 404, { 'content-type': answer?.contentType ?? 'text/plain' })
      .end(isLog ? asSecond(String(answer?.response), logKeys.privateKey) : answer?.response);
  });
  const authority = (...certificates: readonly Buffer[]) => ({
    subject: { commonName: 'sigstore', organization: 'sigstore.mock' },
    certChain: { certificates: certificates.map((each) => ({ rawBytes: base64(each) })) },
    validFor: LONG_AGO,
  });
  const servers: SigstoreServers = {
    url: originOf(server),
    trustedRoot: JSON.stringify({
      mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
      tlogs: [logOf(LOG_URL, log.publicKey)],
      certificateAuthorities: [authority(ca.rootCertificate)],
      ctlogs: [logOf('https://ctlog.test', ctLog.publicKey)],
      timestampAuthorities: [authority(tsa.intCertificate, tsa.rootCertificate)],
    }),
    fault: () => undefined,
    tokenRequests,
    token: undefined,
    close: () => closeServer(server),
  };
  return servers;
}

/** RFC 6962. The mock's own one writes empty signatures with the pkijs that it is installed with. */
function certificateLog() {
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const publicKey = keys.publicKey.export({ type: 'spki', format: 'der' });
  const logID = createHash('sha256').update(publicKey).digest();
  return {
    publicKey,
    logID,
    async log(certificate: ArrayBuffer, issuer: ArrayBuffer): Promise<ArrayBuffer> {
      const time = Buffer.alloc(8);
      time.writeBigUInt64BE(BigInt(Date.now()));
      // The first member of a certificate is what is signed; both have lengths of two bytes.
      const der = Buffer.from(certificate);
      const signed = der.subarray(4, 8 + der.readUInt16BE(6));
      const noExtensions = uint(0, 2);
      const entry = [uint(1, 2), Buffer.from(issuer), uint(signed.length, 3), signed, noExtensions];
      const signature = sign(
        'sha256',
        Buffer.concat([uint(0, 1), uint(0, 1), time, ...entry]),
        keys.privateKey,
      );
      const algorithm = [uint(4, 1), uint(3, 1)];
      const timestamp = Buffer.concat([
        ...[uint(0, 1), logID, time, noExtensions, ...algorithm],
        ...[uint(signature.length, 2), signature],
      ]);
      return Uint8Array.from(Buffer.concat([uint(timestamp.length, 2), timestamp])).buffer;
    },
  };
}

/** How sigstore for Python asks for a certificate, in the form that the mock knows. */
function withToken(body: string, oidcIdentityToken: string): string {
  const { certificateSigningRequest: request } = JSON.parse(body);
  return JSON.stringify({
    credentials: { oidcIdentityToken },
    certificateSigningRequest: Buffer.from(request, 'base64').toString(),
  });
}

/** What Rekor keeps of an envelope: digests and signatures. The mock keeps what it is given. */
function asLogged(body: string): string {
  const { spec, ...entry } = JSON.parse(body);
  const { envelope, verifiers } = spec.proposedContent;
  const { payload, signatures } = JSON.parse(envelope);
  const pem = Buffer.from(new X509Certificate(Buffer.from(verifiers[0], 'base64')).toString());
  const hash = (data: string | Buffer) => ({
    algorithm: 'sha256',
    value: createHash('sha256').update(data).digest('hex'),
  });
  return JSON.stringify({
    ...entry,
    spec: {
      envelopeHash: hash(envelope),
      payloadHash: hash(Buffer.from(payload, 'base64')),
      signatures: [{ signature: signatures[0].sig, verifier: pem.toString('base64') }],
    },
  });
}

/**
 * An entry of the log as its second one. The mock's are the first ones of logs of their own, whose
 * proofs consist of nothing but zeros, which JSON leaves out and sigstore for Python then misses.
 */
function asSecond(answer: string, key: KeyObject): string {
  const hash = (...parts: readonly Buffer[]): Buffer =>
    createHash('sha256').update(Buffer.concat(parts)).digest();
  const [[id, entry] = ['', undefined]] = Object.entries<LogEntry>(JSON.parse(answer));
  if (entry === undefined) return answer;
  const first = hash(Buffer.from([0]), Buffer.from('the first entry'));
  const second = hash(Buffer.from([0]), Buffer.from(entry.body, 'base64'));
  const rootHash = hash(Buffer.from([1]), first, second);
  const { host } = new URL(LOG_URL);
  const note = `${host} - 1\n2\n${rootHash.toString('base64')}\n`;
  const hint = Buffer.from(entry.logID, 'hex').subarray(0, 4);
  const signature = Buffer.concat([hint, sign('sha256', Buffer.from(note), key)]);
  entry.verification.inclusionProof = {
    ...{ logIndex: 1, treeSize: 2, rootHash: rootHash.toString('hex') },
    hashes: [first.toString('hex')],
    checkpoint: `${note}\n\u2014 ${host} ${signature.toString('base64')}\n`,
  };
  return JSON.stringify({ [id]: entry });
}

interface LogEntry {
  readonly body: string;
  readonly logID: string;
  readonly verification: { inclusionProof: object };
}

function uint(value: number, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntBE(value, 0, bytes);
  return buffer;
}

const LONG_AGO = { start: '2020-01-01T00:00:00Z' };
const base64 = (bytes: Buffer): string => bytes.toString('base64');

function logOf(baseUrl: string, publicKey: Buffer) {
  return {
    baseUrl,
    hashAlgorithm: 'SHA2_256',
    publicKey: {
      rawBytes: base64(publicKey),
      keyDetails: 'PKIX_ECDSA_P256_SHA_256',
      validFor: LONG_AGO,
    },
    logId: { keyId: base64(createHash('sha256').update(publicKey).digest()) },
  };
}

/** A token as a CI gives one: Sigstore's servers for tests do not look at the signature. */
export function tokenFor(claims: Readonly<Record<string, unknown>>): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'RS256', typ: 'JWT' })}.${part(claims)}.c2lnbmF0dXJl`;
}
