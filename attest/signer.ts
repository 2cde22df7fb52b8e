import type { Environment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';
import { keySigner } from './key-signer.ts';
import { keylessSigner } from './keyless-signer.ts';

/** Who signs. */
export interface Signer {
  /** For people: which key, or whose identity. */
  readonly name: string;
  /** What a person should know of it: a key that everybody on the machine can read. */
  readonly warnings: readonly string[];
  /**
   * Signs an in-toto statement as a DSSE envelope.
   * @returns the text of a Sigstore bundle, compact JSON
   * @throws WeldlineError `attest.no-identity`, `attest.unavailable`
   */
  sign(statement: Buffer): Promise<string>;
}

/** What signing takes from the environment. */
export type SigningEnvironment = Pick<Environment, 'signing' | 'identity'>;

/**
 * The signer that a recipe's `sign` asks for. It has signed a trial with its key, or got a token
 * for its identity, so a preflight that calls this finds what would fail after the merge.
 * @throws WeldlineError `attest.key-invalid`, `attest.no-identity`, `attest.unavailable`
 */
export async function createSigner(
  method: 'key' | 'keyless',
  { signing, identity }: SigningEnvironment,
): Promise<Signer> {
  if (method === 'keyless') return keylessSigner({ identity });
  if (signing !== undefined) return keySigner(signing.keyFile, signing.passphrase);
  throw new WeldlineError(
    'attest.key-invalid',
    'The recipe says sign: key, and no key is named. Set WELDLINE_SIGNING_KEY to a PEM file with ' +
      'an EC private key (openssl ecparam -name prime256v1 -genkey -noout -out key.pem makes one).',
  );
}
