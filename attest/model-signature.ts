import { type KeyObject, verify } from 'node:crypto';
import { assert, WeldlineError } from '../engine/errors.ts';
import { authenticated, STATEMENT_TYPE } from './envelope.ts';
import { type ModelSignature, PREDICATE_TYPE, parseModelSignature } from './parse-signature.ts';
import { inSigningOrder, rootDigest, type SignedFile } from './signed-files.ts';
import type { Signer } from './signer.ts';
import { hashOf, keyHint, parsePublicKey, requireCurve } from './signing-key.ts';
import { type TrustedIdentity, verifyKeyless } from './verify-keyless.ts';

/** Where OpenSSF Model Signing keeps the signature of a directory. */
export const SIGNATURE_FILE = 'model.sig';

/**
 * What no signature of a directory covers: what git and the hub put there, and where
 * `snapshot_download(local_dir=…)` keeps notes of its own.
 */
export const IGNORED_PATHS = [
  SIGNATURE_FILE,
  ...['.git', '.gitattributes', '.github', '.gitignore', '.cache/huggingface'],
];

export interface SignModelOptions {
  /** Name of the artefact. */
  readonly name: string;
  /** All files but the signature itself. */
  readonly files: readonly SignedFile[];
  readonly signer: Signer;
}

/**
 * Signs files as OpenSSF Model Signing 1.0 does (method `files`, SHA-256), so that the tool
 * `model_signing` verifies it.
 * @returns the text of `model.sig`
 * @throws WeldlineError `attest.*`, from the signer
 */
export async function signModel({ name, files, signer }: SignModelOptions): Promise<string> {
  assert(files.length > 0, 'a signature of nothing');
  assert(new Set(files.map(({ path }) => path)).size === files.length, 'a file signed twice');
  const ignored = files.find(({ path }) => isIgnored(path, IGNORED_PATHS));
  assert(ignored === undefined, `${ignored?.path} cannot be signed`);
  const ordered = inSigningOrder(files);
  const statement = {
    _type: STATEMENT_TYPE,
    subject: [{ name, digest: { sha256: rootDigest(ordered) } }],
    predicateType: PREDICATE_TYPE,
    predicate: {
      serialization: {
        method: 'files',
        hash_type: 'sha256',
        allow_symlinks: false,
        ignore_paths: IGNORED_PATHS,
      },
      resources: ordered.map(({ path, sha256 }) => ({
        name: path,
        algorithm: 'sha256',
        digest: sha256,
      })),
    },
  };
  return signer.sign(Buffer.from(JSON.stringify(statement)));
}

/** Whose signature is asked for: a key's, as PEM text, or somebody's whom Sigstore certified. */
export type Trust = { readonly publicKey: string } | TrustedIdentity;

export interface VerifyModelOptions {
  /** What is there, with the digests that were found; the signature itself may be among it. */
  readonly files: readonly SignedFile[];
  readonly trust: Trust;
  /** Whether a file that was signed may be gone: one that was pruned. */
  readonly mayLack?: (path: string) => boolean;
}

export interface VerifiedSignature {
  /** For people: the fingerprint of the key, or the identity and who vouches for it. */
  readonly signedBy: string;
  /** What the signer called the model. */
  readonly name: string;
  /** How many files the signature lists; all that are there were compared. */
  readonly filesListed: number;
  /** Files that are there and that the signature leaves out in so many words, `model.sig` aside. */
  readonly ignored: readonly string[];
}

/**
 * Checks who signed, and that what is signed is what is there: nothing else, nothing less.
 * @param text of `model.sig`
 * @throws WeldlineError `attest.signature-invalid`, which names the files that differ,
 *   `attest.not-covered` for files that nobody signed, `attest.key-invalid` and
 *   `attest.unsupported`; without a trusted root at hand also `attest.unavailable`
 */
export async function verifyModelSignature(
  text: string,
  { files, trust, mayLack }: VerifyModelOptions,
): Promise<VerifiedSignature> {
  const signature = parseModelSignature(text);
  const signedBy =
    'publicKey' in trust
      ? verifyByKey(signature, trust.publicKey)
      : await verifyKeyless(signature, trust);
  const ignored = compareSignedFiles(signature, files, mayLack);
  return { signedBy, name: signature.name, filesListed: signature.files.length, ignored };
}

function verifyByKey({ proof, payload }: ModelSignature, pem: string): string {
  const key: KeyObject = parsePublicKey(pem);
  const curve = requireCurve(key, 'The public key');
  if (proof.kind !== 'key') {
    throw new WeldlineError(
      'attest.signature-invalid',
      `${SIGNATURE_FILE} was not made with a key but by an identity that Sigstore certified. Name ` +
        'that identity and its issuer to check it.',
    );
  }
  const hint = keyHint(key);
  if (proof.hint !== undefined && proof.hint !== hint) {
    throw new WeldlineError(
      'attest.signature-invalid',
      `${SIGNATURE_FILE} was made with another key (fingerprint sha256:${proof.hint}) than the one ` +
        `it is checked with (sha256:${hint}). Use the public key of whoever should have signed.`,
    );
  }
  if (!verify(hashOf(curve), authenticated(payload), key, proof.signature)) {
    throw new WeldlineError(
      'attest.signature-invalid',
      `${SIGNATURE_FILE} is not what the key signed: it was changed since, or another key made it. ` +
        'Do not use the model; fetch it again from where it was published.',
    );
  }
  return `the key with the fingerprint sha256:${hint}`;
}

/**
 * Compares what is there with what a signature lists, whoever made it.
 * @returns the files that are there and that the signature says it leaves out, `model.sig` aside
 * @throws WeldlineError `attest.signature-invalid`, `attest.not-covered`; both name the files
 */
export function compareSignedFiles(
  signature: ModelSignature,
  files: readonly SignedFile[],
  mayLack: (path: string) => boolean = () => false,
): readonly string[] {
  const found = new Map(files.map(({ path, sha256 }) => [path, sha256]));
  const listed = new Set(signature.files.map(({ path }) => path));
  const missing = [...listed].filter((path) => !found.has(path) && !mayLack(path));
  const changed = signature.files.flatMap(({ path, sha256 }) =>
    found.has(path) && found.get(path) !== sha256 ? [path] : [],
  );
  const unlisted = files.map(({ path }) => path).filter((path) => !listed.has(path));
  const isLeftOut = (path: string): boolean =>
    path === SIGNATURE_FILE || isIgnored(path, signature.ignoredPaths);
  const added = unlisted.filter((path) => !isLeftOut(path));
  const problems = [
    ...describe('is not what was signed', 'are not what was signed', changed),
    ...describe('was signed and is missing', 'were signed and are missing', missing),
    ...describe('is there and nobody signed it', 'are there and nobody signed them', added),
  ];
  if (problems.length > 0) {
    const isOnlyAdded = changed.length + missing.length === 0;
    throw new WeldlineError(
      isOnlyAdded ? 'attest.not-covered' : 'attest.signature-invalid',
      `${problems.join('; ')}. ${isOnlyAdded ? 'Remove what does not belong there.' : 'Fetch the model again from where it was published.'}`,
      { details: { changed, missing, added } },
    );
  }
  return unlisted.filter((path) => path !== SIGNATURE_FILE);
}

function isIgnored(path: string, ignored: readonly string[]): boolean {
  return ignored.some((each) => path === each || path.startsWith(`${each}/`));
}

/** More names than this are in the details only. */
const NAMES_MAX = 3;

function describe(one: string, several: string, paths: readonly string[]): string[] {
  if (paths.length === 0) return [];
  const names = paths
    .slice(0, NAMES_MAX)
    .map((path) => path.slice(0, 200))
    .join(', ');
  const more = paths.length - NAMES_MAX;
  return [`${names}${more > 0 ? ` and ${more} more` : ''} ${paths.length === 1 ? one : several}`];
}
