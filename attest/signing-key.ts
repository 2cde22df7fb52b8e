import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { WeldlineError } from '../engine/errors.ts';

/** The curves of OpenSSF Model Signing: OpenSSL's name, the usual one, and the hash beside it. */
const CURVES = {
  prime256v1: { name: 'P-256', hash: 'sha256' },
  secp384r1: { name: 'P-384', hash: 'sha384' },
  secp521r1: { name: 'P-521', hash: 'sha512' },
} as const;

export type Curve = keyof typeof CURVES;

/**
 * @param subject what the key is called at the beginning of an error's sentence
 * @throws WeldlineError `attest.key-invalid` for a key of another kind
 */
export function requireCurve(key: KeyObject, subject: string): Curve {
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (key.asymmetricKeyType === 'ec' && curve !== undefined && curve in CURVES) {
    return curve as Curve;
  }
  const kind = key.asymmetricKeyType === 'ec' ? (curve ?? 'ec') : (key.asymmetricKeyType ?? '?');
  throw new WeldlineError(
    'attest.key-invalid',
    `${subject} is of the kind ${kind}, which OpenSSF Model Signing does not know. Use an EC key ` +
      'on P-256, P-384 or P-521.',
  );
}

export function hashOf(curve: Curve): string {
  return CURVES[curve].hash;
}

/**
 * What a bundle calls a public key: the SHA-256, in hex, of its PEM text with the line feed at the
 * end. A key whose point is compressed is called as if it were not, as other tools do.
 */
export function keyHint(key: KeyObject): string {
  const plain = createPublicKey({ key: key.export({ format: 'jwk' }), format: 'jwk' });
  return createHash('sha256')
    .update(plain.export({ format: 'pem', type: 'spki' }))
    .digest('hex');
}

/**
 * The public key that somebody names to check a signature with.
 * @param pem text of a file with one public key
 * @throws WeldlineError `attest.key-invalid`
 */
export function parsePublicKey(pem: string): KeyObject {
  const label = /-----BEGIN ([A-Z0-9 ]+)-----/.exec(pem)?.[1];
  if (label !== 'PUBLIC KEY') {
    throw new WeldlineError(
      'attest.key-invalid',
      `What signatures are checked with is no PEM public key${label ? ` but a ${label}` : ''}. ` +
        'Name the public half of the key (openssl pkey -in key.pem -pubout makes it).',
    );
  }
  try {
    return createPublicKey(pem);
  } catch (error) {
    throw new WeldlineError(
      'attest.key-invalid',
      'The public key that signatures are checked with is damaged. Restore it from its key ' +
        '(openssl pkey -in key.pem -pubout).',
      { cause: error },
    );
  }
}
