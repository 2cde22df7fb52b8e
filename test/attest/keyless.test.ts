/** Signatures by identity, against a Sigstore of the test's own, and against sigstore for Python. */

import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { keySigner } from '../../attest/key-signer.ts';
import { type KeylessOptions, keylessSigner } from '../../attest/keyless-signer.ts';
import { signModel, type Trust, verifyModelSignature } from '../../attest/model-signature.ts';
import { createSigner } from '../../attest/signer.ts';
import { Secret } from '../../config/secret.ts';
import {
  type SigstoreServers,
  startSigstore,
  TOKEN_PATH,
  tokenFor,
} from '../harness/sigstore-servers.ts';
import { runServicesPython } from '../services-python.ts';
import { digestsIn, temporaryDirectory, writeKey, writeModel } from './signed-model.ts';

const TOOL = join(import.meta.dirname, 'model_signing_tool.py');
const IDENTITY = 'https://github.com/org/repo/.github/workflows/release.yml@refs/heads/main';
const ISSUER = 'https://token.actions.githubusercontent.com';
const FULCIO = '/api/v2/signingCert';
const REKOR = '/api/v1/log/entries';
const SECONDS = Math.floor(Date.now() / 1000);
const CLAIMS = {
  ...{ sub: IDENTITY, iss: ISSUER, aud: 'sigstore' },
  ...{ iat: SECONDS - 60, nbf: SECONDS - 60, exp: SECONDS + 3600 },
};
const TOKEN = tokenFor(CLAIMS);
/** What would let a reader sign: none of it may be in an error. */
const CANARY = 'canary-of-a-token';

let home: string;
let sigstore: SigstoreServers;
let model: string;
let signature: string;
let trust: Trust;
let answers: readonly unknown[];

function signer(options: Partial<KeylessOptions> = {}) {
  return keylessSigner({
    identity: { token: new Secret(TOKEN) },
    ...{ fulcioUrl: sigstore.url, rekorUrl: sigstore.url, retries: 0 },
    ...options,
  });
}

async function sign(options: Partial<KeylessOptions> = {}): Promise<string> {
  return signModel({ name: 'm', files: await digestsIn(model), signer: await signer(options) });
}

beforeAll(async () => {
  home = await temporaryDirectory();
  sigstore = await startSigstore();
  model = await writeModel(home);
  trust = { identity: IDENTITY, issuer: ISSUER, trustedRoot: sigstore.trustedRoot };
  signature = await sign();
  const path = (name: string): string => join(home, name);
  await writeFile(path('ours.sig'), signature);
  await writeFile(path('stamped.sig'), await sign({ timestampUrl: sigstore.url }));
  await writeFile(path('trust.json'), clientTrust(sigstore));
  const common = { model, trustConfig: path('trust.json'), identity: IDENTITY, issuer: ISSUER };
  answers = (await runServicesPython(TOOL, [
    { ...common, ask: 'verify', signature: path('ours.sig') },
    { ...common, ask: 'verify', signature: path('stamped.sig') },
    { ...common, ask: 'verify', signature: path('ours.sig'), identity: `${IDENTITY}x` },
    {
      ...{ ...common, ask: 'sign', signature: path('theirs.sig') },
      ...{ token: TOKEN, oidcIssuer: sigstore.url },
    },
  ])) as unknown[];
});

afterEach(() => {
  sigstore.fault = () => undefined;
  sigstore.tokenRequests.length = 0;
});

afterAll(async () => {
  await sigstore.close();
  await rm(home, { recursive: true, force: true });
});

/** What sigstore for Python needs to know of servers. */
function clientTrust({ url, trustedRoot }: SigstoreServers): string {
  const validFor = { start: '2020-01-01T00:00:00Z' };
  const service = { url, majorApiVersion: 1, operator: 'test', validFor };
  return JSON.stringify({
    mediaType: 'application/vnd.dev.sigstore.clienttrustconfig.v0.1+json',
    trustedRoot: JSON.parse(trustedRoot),
    signingConfig: {
      mediaType: 'application/vnd.dev.sigstore.signingconfig.v0.2+json',
      ...{ caUrls: [service], oidcUrls: [service], rekorTlogUrls: [service] },
      ...{ rekorTlogConfig: { selector: 'ANY' }, tsaUrls: [], tsaConfig: { selector: 'ANY' } },
    },
  });
}

async function failure(promise: Promise<unknown>): Promise<Error> {
  const error = await promise.then(
    () => new Error('no error'),
    (caught: Error) => caught,
  );
  expect(inspect(error, { depth: 10 })).not.toMatch(new RegExp(`${CANARY}|${TOKEN}`));
  return error;
}

describe('a signature by identity', () => {
  it('is verified by weldline', async () => {
    const files = await digestsIn(model);
    expect(await verifyModelSignature(signature, { files, trust })).toEqual({
      ...{ signedBy: `${IDENTITY}, issuer ${ISSUER}`, name: 'm', filesListed: 5, ignored: [] },
    });
    const stamped = await readFile(join(home, 'stamped.sig'), 'utf8');
    expect(await verifyModelSignature(stamped, { files, trust })).toMatchObject({ name: 'm' });
  });

  it('is verified by the tool model_signing, for this identity alone', () => {
    expect(answers.slice(0, 3)).toEqual([
      ...['verified', 'verified'],
      expect.stringMatching(/^VerificationError: .*SAN/i),
    ]);
  });

  it('of the tool is verified by weldline', async () => {
    expect(answers[3]).toBe('signed');
    const text = await readFile(join(home, 'theirs.sig'), 'utf8');
    expect(
      await verifyModelSignature(text, { files: await digestsIn(model), trust }),
    ).toMatchObject({ signedBy: `${IDENTITY}, issuer ${ISSUER}`, filesListed: 5 });
  });

  it.each([
    ['another identity', { identity: `${IDENTITY}x` }, /not by https:/],
    ['a beginning of the identity', { identity: IDENTITY.slice(0, 30) }, /not by https:/],
    ['a pattern that fits the identity', { identity: '.*' }, /not by \.\*/],
    ['another issuer', { issuer: 'https://elsewhere.test' }, /issuer https:\/\/elsewhere.test/],
  ])('is refused for %s', async (_, other, message) => {
    const promise = verifyModelSignature(signature, {
      files: await digestsIn(model),
      trust: { ...(trust as object), ...other } as Trust,
    });
    expect(await failure(promise)).toMatchObject({
      code: 'attest.signature-invalid',
      message: expect.stringMatching(message),
    });
  });

  it.each([
    ['what is signed', (bundle: Bundle) => swap(bundle.dsseEnvelope, 'payload', 'cHdmZA==')],
    [
      'the signature',
      (bundle: Bundle) => swap(bundle.dsseEnvelope.signatures[0]!, 'sig', 'MEUCIQ=='),
    ],
    [
      'the log’s entry',
      (bundle: Bundle) =>
        swap(bundle.verificationMaterial.tlogEntries[0]!, 'integratedTime', '1700000000'),
    ],
    [
      'the log’s entry, which is missing',
      (bundle: Bundle) => swap(bundle.verificationMaterial, 'tlogEntries', []),
    ],
  ])('is refused after a change of %s', async (_, change) => {
    const bundle = JSON.parse(signature) as Bundle;
    change(bundle);
    const promise = verifyModelSignature(JSON.stringify(bundle), {
      files: await digestsIn(model),
      trust,
    });
    expect(await failure(promise)).toMatchObject({ code: 'attest.signature-invalid' });
  });

  it('is refused for files that changed, and names them', async () => {
    const files = (await digestsIn(model)).map((file) =>
      file.path === 'config.json' ? { ...file, sha256: '0'.repeat(64) } : file,
    );
    expect(await failure(verifyModelSignature(signature, { files, trust }))).toMatchObject({
      code: 'attest.signature-invalid',
      details: { changed: ['config.json'] },
    });
  });

  it('of another Sigstore is refused', async () => {
    const other = await startSigstore();
    await other.close();
    const promise = verifyModelSignature(signature, {
      files: await digestsIn(model),
      trust: { identity: IDENTITY, issuer: ISSUER, trustedRoot: other.trustedRoot },
    });
    expect(await failure(promise)).toMatchObject({ code: 'attest.signature-invalid' });
  });

  it.each(['', '{}', '{"tlogs":"x"}'])('is not checked with the root %j', async (trustedRoot) => {
    const promise = verifyModelSignature(signature, {
      files: await digestsIn(model),
      trust: { identity: IDENTITY, issuer: ISSUER, trustedRoot },
    });
    expect(await failure(promise)).toMatchObject({ code: 'attest.key-invalid' });
  });

  it('is no signature by a key, nor the other way round', async () => {
    const { key, publicKey } = await writeKey(home, 'P-256');
    const files = await digestsIn(model);
    const byKey = await signModel({ name: 'm', files, signer: await keySigner(key) });
    expect(await failure(verifyModelSignature(byKey, { files, trust }))).toMatchObject({
      code: 'attest.signature-invalid',
      message: expect.stringContaining('name its public key'),
    });
    const pem = await readFile(publicKey, 'utf8');
    const promise = verifyModelSignature(signature, { files, trust: { publicKey: pem } });
    expect(await failure(promise)).toMatchObject({
      code: 'attest.signature-invalid',
      message: expect.stringContaining('Name that identity and its issuer'),
    });
  });
});

describe('the identity of a CI job', () => {
  it('is asked for at GitHub Actions, before the merge and again to sign', async () => {
    sigstore.token = TOKEN;
    const requestUrl = `${sigstore.url}${TOKEN_PATH}`;
    const text = await sign({ identity: { requestUrl, requestToken: new Secret(CANARY) } });
    expect(
      await verifyModelSignature(text, { files: await digestsIn(model), trust }),
    ).toMatchObject({ filesListed: 5 });
    const request = { audience: 'sigstore', authorization: `Bearer ${CANARY}` };
    expect(sigstore.tokenRequests).toEqual([request, request]);
  });

  it.each([
    ['that may have none', 403, 'attest.no-identity', /no token \(HTTP 403\)/],
    ['whose token server is not well', 502, 'attest.unavailable', /answers 502/],
  ])('is missed at one %s', async (_, status, code, message) => {
    sigstore.fault = (path) => (path === '/token' ? status : undefined);
    const requestUrl = `${sigstore.url}${TOKEN_PATH}`;
    const promise = signer({ identity: { requestUrl, requestToken: new Secret(CANARY) } });
    expect(await failure(promise)).toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  it.each([
    ['is none', undefined, /there is none here/],
    ['is no JWT', CANARY, /its token is no JWT/],
    ['is no JSON', `a.${CANARY}.c`, /its token is no JWT/],
    ['has expired', tokenFor({ ...CLAIMS, exp: SECONDS - 5, n: CANARY }), /has expired/],
    ['is for others', tokenFor({ ...CLAIMS, aud: 'aws', n: CANARY }), /another audience/],
    ['is nobody’s', tokenFor({ aud: 'sigstore', n: CANARY }), /whom it was given to/],
  ])('is refused before the merge where it %s', async (_, token, message) => {
    const identity = token === undefined ? undefined : { token: new Secret(token) };
    expect(await failure(signer({ identity }))).toMatchObject({
      code: 'attest.no-identity',
      message: expect.stringMatching(message),
    });
  });

  it('is what a recipe with sign: keyless asks for', async () => {
    expect(await failure(createSigner('keyless', {}))).toMatchObject({
      code: 'attest.no-identity',
      message: expect.stringContaining('id-token: write'),
    });
    const { name } = await createSigner('keyless', { identity: { token: new Secret(TOKEN) } });
    expect(name).toBe(`${IDENTITY}, issuer ${ISSUER}`);
  });

  it.each([
    ['refuses', FULCIO, 403, 'attest.no-identity', /refuses it \(HTTP 403\)/],
    ['is not well', FULCIO, 503, 'attest.unavailable', /authority answers HTTP 503/],
    ['is busy', FULCIO, 429, 'attest.unavailable', /authority answers HTTP 429/],
    ['cannot log', REKOR, 500, 'attest.unavailable', /log answers HTTP 500/],
  ])('is of no use where Sigstore %s', async (_, at, status, code, message) => {
    sigstore.fault = (path) => (path === at ? status : undefined);
    expect(await failure(sign())).toMatchObject({ code, message: expect.stringMatching(message) });
  });
});

interface Bundle {
  readonly dsseEnvelope: { payload: string; readonly signatures: { sig: string }[] };
  readonly verificationMaterial: { tlogEntries: { integratedTime: string }[] };
}

/** Changes one member, which must have been another. */
function swap<Value extends object, Key extends keyof Value>(
  value: Value,
  key: Key,
  to: Value[Key],
): void {
  expect(value[key]).not.toEqual(to);
  value[key] = to;
}
