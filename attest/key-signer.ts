import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { open } from 'node:fs/promises';
import type { Secret } from '../config/secret.ts';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { authenticated, BUNDLE_TYPE, PAYLOAD_TYPE } from './envelope.ts';
import type { Signer } from './signer.ts';
import { hashOf, keyHint, requireCurve } from './signing-key.ts';

/** A PEM key has a few hundred bytes; anything much larger is another file. */
const KEY_BYTES_MAX = 64 * 1024;
const OTHERS_MAY_READ = 0o004;

/**
 * A signer with a private key out of a PEM file (PKCS#8 or SEC1), on P-256, P-384 or P-521.
 * Signatures are randomised: the same statement signed twice gives two texts.
 * @param passphrase of an encrypted key
 * @throws WeldlineError `attest.key-invalid`
 */
export async function keySigner(file: string, passphrase?: Secret): Promise<Signer> {
  const { pem, mode } = await readKeyFile(file);
  const key = parsePrivateKey(pem, file, passphrase);
  const curve = requireCurve(key, `The signing key ${file}`);
  const publicKey = createPublicKey(key);
  const hint = keyHint(publicKey);
  const signed = (statement: Buffer): Buffer => sign(hashOf(curve), authenticated(statement), key);
  // A damaged file can hold a public half that is another key's: nobody could verify its signatures.
  const trial = Buffer.from('trial');
  if (!verify(hashOf(curve), authenticated(trial), publicKey, signed(trial))) {
    throw invalid(`The two halves of the signing key ${file} do not belong together.`);
  }
  return {
    name: `the key ${file}, fingerprint sha256:${hint}`,
    warnings:
      (mode & OTHERS_MAY_READ) === 0
        ? []
        : [`Everybody on this machine can read the signing key ${file}: chmod 600 it.`],
    sign: async (statement) =>
      JSON.stringify({
        mediaType: BUNDLE_TYPE,
        verificationMaterial: { publicKey: { hint }, tlogEntries: [] },
        dsseEnvelope: {
          payload: statement.toString('base64'),
          payloadType: PAYLOAD_TYPE,
          signatures: [{ sig: signed(statement).toString('base64'), keyid: '' }],
        },
      }),
  };
}

async function readKeyFile(file: string): Promise<{ pem: string; mode: number }> {
  try {
    const handle = await open(file, 'r');
    try {
      const { size, mode } = await handle.stat();
      if (size > KEY_BYTES_MAX) throw invalid(`${file} has ${size} bytes, which no key has.`);
      return { pem: await handle.readFile('utf8'), mode };
    } finally {
      await handle.close();
    }
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    throw invalid(`The signing key ${file} cannot be read (${code}).`, error);
  }
}

function parsePrivateKey(pem: string, file: string, passphrase: Secret | undefined): KeyObject {
  if (!/-----BEGIN ([A-Z]+ )*PRIVATE KEY-----/.test(pem)) {
    const isPublic = pem.includes('-----BEGIN PUBLIC KEY-----');
    throw invalid(`${file} holds ${isPublic ? 'a public key' : 'no PEM'}, not a private key.`);
  }
  const isEncrypted = /-----BEGIN ENCRYPTED |^Proc-Type: 4,ENCRYPTED/m.test(pem);
  if (isEncrypted && passphrase === undefined) {
    throw new WeldlineError(
      'attest.key-invalid',
      `The signing key ${file} is encrypted. Set WELDLINE_SIGNING_PASSPHRASE to its passphrase.`,
    );
  }
  try {
    return createPrivateKey({ key: pem, ...(passphrase && { passphrase: passphrase.reveal() }) });
  } catch (error) {
    throw isEncrypted
      ? new WeldlineError(
          'attest.key-invalid',
          `The signing key ${file} does not open with the passphrase in ` +
            'WELDLINE_SIGNING_PASSPHRASE. Correct it.',
          { cause: error },
        )
      : invalid(`The signing key ${file} cannot be read as one.`, error);
  }
}

function invalid(problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError(
    'attest.key-invalid',
    `${problem} Set WELDLINE_SIGNING_KEY to a PEM file with an EC private key on P-256, P-384 or ` +
      'P-521 (openssl ecparam -name prime256v1 -genkey -noout -out key.pem makes one).',
    { cause },
  );
}
