import type { Signer } from '@sigstore/verify';
import { WeldlineError } from '../engine/errors.ts';
import type { ModelSignature } from './parse-signature.ts';

/** Texts of a library's errors may quote what came from outside. */
const PROBLEM_LENGTH_MAX = 300;

/** Whose signature is asked for. Both are compared as they stand, without patterns. */
export interface TrustedIdentity {
  /** An e-mail address or a URI, such as that of a workflow. */
  readonly identity: string;
  /** URL of who vouches for the identity. */
  readonly issuer: string;
  /**
   * Text of a `trusted_root.json`, which names the authorities and logs that are believed; absent:
   * that of the public Sigstore, fetched and verified by TUF.
   */
  readonly trustedRoot?: string;
}

/**
 * Checks that whoever is named signed, while their certificate was valid, and that a log has it.
 * @returns who signed, for people
 * @throws WeldlineError `attest.signature-invalid`, `attest.key-invalid` for a bad trusted root,
 *   `attest.unavailable` where the public one cannot be fetched
 */
export async function verifyKeyless(
  { proof }: ModelSignature,
  { identity, issuer, trustedRoot }: TrustedIdentity,
): Promise<string> {
  if (proof.kind !== 'keyless') {
    throw invalid('it was made with a key, not by an identity: name its public key instead');
  }
  const verifyBundle = await bundleVerifier(trustedRoot);
  let signer: Signer;
  try {
    signer = verifyBundle(proof.bundle);
  } catch (error) {
    throw invalid(String((error as Error).message).slice(0, PROBLEM_LENGTH_MAX), error);
  }
  const found = {
    identity: signer.identity?.subjectAlternativeName,
    issuer: signer.identity?.extensions?.issuer,
  };
  if (found.identity !== identity || found.issuer !== issuer) {
    throw invalid(
      `it is by ${found.identity ?? 'nobody'} (issuer ${found.issuer ?? 'unknown'}), not by ` +
        `${identity} (issuer ${issuer})`,
    );
  }
  return `${identity}, issuer ${issuer}`;
}

async function bundleVerifier(
  trustedRoot: string | undefined,
): Promise<(bundle: unknown) => Signer> {
  if (trustedRoot === undefined) {
    const { createVerifier } = await import('sigstore');
    try {
      const verifier = await createVerifier();
      return (bundle) => verifier.verify(bundle as Parameters<typeof verifier.verify>[0]);
    } catch (error) {
      throw new WeldlineError(
        'attest.unavailable',
        `The trusted root of the public Sigstore cannot be fetched (${(error as Error).message}). ` +
          'Try again later, or name a file that has it.',
        { cause: error },
      );
    }
  }
  const [{ bundleFromJSON }, { TrustedRoot }, { toSignedEntity, toTrustMaterial, Verifier }] =
    await Promise.all([
      import('@sigstore/bundle'),
      import('@sigstore/protobuf-specs'),
      import('@sigstore/verify'),
    ]);
  try {
    const material = toTrustMaterial(TrustedRoot.fromJSON(JSON.parse(trustedRoot)));
    if (material.certificateAuthorities.length * material.tlogs.length === 0) {
      throw new RangeError('no authority or no log');
    }
    const verifier = new Verifier(material);
    return (bundle) => verifier.verify(toSignedEntity(bundleFromJSON(bundle)));
  } catch (error) {
    throw new WeldlineError(
      'attest.key-invalid',
      'The trusted root that signatures are checked with is no trusted_root.json of Sigstore. ' +
        'Name one, or none for that of the public Sigstore.',
      { cause: error },
    );
  }
}

function invalid(problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError('attest.signature-invalid', `model.sig does not hold: ${problem}.`, {
    cause,
  });
}
