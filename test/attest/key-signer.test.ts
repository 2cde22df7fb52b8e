/** Keys that cannot sign, and signatures that nobody could check. */
import { generateKeyPairSync } from 'node:crypto';
import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keySigner } from '../../attest/key-signer.ts';
import { signModel, verifyModelSignature } from '../../attest/model-signature.ts';
import { createSigner } from '../../attest/signer.ts';
import { Secret } from '../../config/secret.ts';
import { temporaryDirectory, writeKey } from './signed-model.ts';

const CANARY = 'canary-passphrase';
const FILES = [{ path: 'a', sha256: 'a'.repeat(64) }];

let home: string;
beforeAll(async () => {
  home = await temporaryDirectory();
});
afterAll(() => rm(home, { recursive: true, force: true }));

async function fileWith(text: string): Promise<string> {
  const file = join(home, 'key.pem');
  await writeFile(file, text);
  return file;
}

const privatePem = (kind: 'ed25519' | 'rsa'): string => {
  const options = { modulusLength: 2048 };
  const { privateKey } =
    kind === 'rsa' ? generateKeyPairSync('rsa', options) : generateKeyPairSync('ed25519');
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
};

const rejection = async (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'no error',
    (error: unknown) => error,
  );

describe('a signing key', () => {
  it.each([
    ['is missing', async () => join(home, 'nowhere.pem'), /cannot be read \(ENOENT\)/],
    ['is a directory', async () => home, /cannot be read \(EISDIR\)/],
    ['is no PEM', () => fileWith('hello'), /holds no PEM/],
    ['is damaged', () => fileWith(pemOf('PRIVATE KEY')), /cannot be read as one/],
    ['is another file', () => fileWith('x'.repeat(100_000)), /has 100000 bytes/],
    ['is Ed25519', () => fileWith(privatePem('ed25519')), /is of the kind ed25519/],
    ['is RSA', () => fileWith(privatePem('rsa')), /is of the kind rsa/],
    [
      'is on another curve',
      async () => (await writeKey(home, 'secp256k1')).key,
      /is of the kind secp256k1/,
    ],
    ['is public', async () => (await writeKey(home, 'P-256')).publicKey, /holds a public key/],
    [
      'is encrypted, without a passphrase',
      async () => (await writeKey(home, 'P-256', { passphrase: CANARY })).key,
      /is encrypted. Set WELDLINE_SIGNING_PASSPHRASE/,
    ],
  ])('that %s is refused', async (_, make, message) => {
    expect(await rejection(keySigner(await make()))).toMatchObject({
      code: 'attest.key-invalid',
      message: expect.stringMatching(message),
    });
  });

  it.each(['pkcs8', 'sec1'] as const)(
    'that its passphrase does not open is refused, and nothing shown (%s)',
    async (format) => {
      const { key } = await writeKey(home, 'P-256', { format, passphrase: 'another' });
      const error = await rejection(keySigner(key, new Secret(CANARY)));
      expect(error).toMatchObject({
        code: 'attest.key-invalid',
        message: expect.stringContaining('does not open with the passphrase'),
      });
      const { message, stack, cause } = error as Error;
      expect(`${message}${stack}${String(cause)}`).not.toContain(CANARY);
    },
  );

  it('that everybody can read is used, and warned of', async () => {
    const { key } = await writeKey(home, 'P-256');
    expect((await keySigner(key)).warnings).toEqual([]);
    await chmod(key, 0o644);
    expect((await keySigner(key)).warnings).toEqual([expect.stringContaining('chmod 600')]);
  });

  it('is asked for where a recipe wants one and the environment has none', async () => {
    await expect(createSigner('key', {})).rejects.toMatchObject({
      code: 'attest.key-invalid',
      message: expect.stringContaining('WELDLINE_SIGNING_KEY'),
    });
    const { key } = await writeKey(home, 'P-256');
    const signer = await createSigner('key', { signing: { keyFile: key } });
    expect(signer.name).toMatch(/^the key .*, fingerprint sha256:[0-9a-f]{64}$/);
  });
});

describe('what a signature is checked with', () => {
  it.each([
    ['nothing of a key', 'hello', /no PEM public key/],
    ['a private key', pemOf('PRIVATE KEY'), /but a PRIVATE KEY/],
    ['a certificate', pemOf('CERTIFICATE'), /but a CERTIFICATE/],
    ['a damaged key', pemOf('PUBLIC KEY'), /is damaged/],
  ])('is refused where it is %s', async (_, publicKey, message) => {
    const signer = await keySigner((await writeKey(home, 'P-256')).key);
    const text = await signModel({ name: 'm', files: FILES, signer });
    expect(
      await rejection(verifyModelSignature(text, { files: FILES, trust: { publicKey } })),
    ).toMatchObject({ code: 'attest.key-invalid', message: expect.stringMatching(message) });
  });
});

describe('what is no signature of a model', () => {
  it.each([
    ['no JSON', () => 'x', 'attest.signature-invalid', /it is no JSON/],
    ['another JSON', () => '[]', 'attest.signature-invalid', /expected object/i],
    [
      'of another kind of statement',
      (statement: Statement) => ({ ...statement, predicateType: 'https://slsa.dev/provenance/v1' }),
      'attest.unsupported',
      /it signs a "https:\/\/slsa/,
    ],
    [
      'of pieces of files',
      (statement: Statement) => withSerialization(statement, { method: 'shards' }),
      'attest.unsupported',
      /pieces of files/,
    ],
    [
      'with other digests',
      (statement: Statement) => withSerialization(statement, { hash_type: 'blake3' }),
      'attest.unsupported',
      /not SHA-256 but blake3/,
    ],
    [
      'of two models',
      (statement: Statement) => ({
        ...statement,
        subject: [...statement.subject, ...statement.subject],
      }),
      'attest.signature-invalid',
      /subject/,
    ],
    [
      'whose whole is not the sum of its parts',
      (statement: Statement) => ({
        ...statement,
        subject: [{ name: 'm', digest: { sha256: 'b'.repeat(64) } }],
      }),
      'attest.signature-invalid',
      /does not follow/,
    ],
  ] as const)('is refused: %s', async (_, change, code, message) => {
    const { key, publicKey } = await writeKey(home, 'P-256');
    const signer = await keySigner(key);
    const trust = { publicKey: await readFile(publicKey, 'utf8') };
    const changed = change(statementOf(await signModel({ name: 'm', files: FILES, signer })));
    const text =
      typeof changed === 'string'
        ? changed
        : await signer.sign(Buffer.from(JSON.stringify(changed)));
    expect(await rejection(verifyModelSignature(text, { files: FILES, trust }))).toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  it('is refused with the name of what made it, where that is a certificate', async () => {
    const { key, publicKey } = await writeKey(home, 'P-256');
    const signer = await keySigner(key);
    const bundle = JSON.parse(await signModel({ name: 'm', files: FILES, signer }));
    bundle.verificationMaterial = { x509CertificateChain: { certificates: [] }, tlogEntries: [] };
    const trust = { publicKey: await readFile(publicKey, 'utf8') };
    expect(
      await rejection(verifyModelSignature(JSON.stringify(bundle), { files: FILES, trust })),
    ).toMatchObject({
      code: 'attest.unsupported',
      message: expect.stringContaining('model_signing verify'),
    });
  });
});

interface Statement {
  readonly subject: readonly object[];
  readonly predicate: { readonly serialization: object };
}

function statementOf(signature: string): Statement {
  const { dsseEnvelope } = JSON.parse(signature) as { dsseEnvelope: { payload: string } };
  return JSON.parse(Buffer.from(dsseEnvelope.payload, 'base64').toString()) as Statement;
}

function withSerialization(statement: Statement, change: object): Statement {
  const { predicate } = statement;
  return {
    ...statement,
    predicate: { ...predicate, serialization: { ...predicate.serialization, ...change } },
  };
}

function pemOf(label: string): string {
  return `-----BEGIN ${label}-----\nMIGHAgEAMBMGByqGSM49\n-----END ${label}-----\n`;
}
