import { z } from 'zod';
import { WeldlineError } from '../engine/errors.ts';
import { problemsOf } from '../engine/schema-problems.ts';
import { BUNDLE_TYPE, PAYLOAD_TYPE, STATEMENT_TYPE } from './envelope.ts';
import { rootDigest, type SignedFile } from './signed-files.ts';

export const PREDICATE_TYPE = 'https://model_signing/signature/v1.0';

/** A signature of a directory, read but not yet believed. */
export interface ModelSignature {
  /** What the signer called the model. */
  readonly name: string;
  readonly files: readonly SignedFile[];
  /** Relative paths, of files or of whole directories, that the signer left out. */
  readonly ignoredPaths: readonly string[];
  /** What was signed, as it was signed. */
  readonly payload: Buffer;
  readonly proof: Proof;
}

export type Proof =
  | { readonly kind: 'key'; readonly hint?: string; readonly signature: Buffer }
  /** `bundle` is what Sigstore's own verifier takes. */
  | { readonly kind: 'keyless'; readonly bundle: unknown };

/** A list of a hundred thousand files has a tenth of this. */
const SIGNATURE_CHARACTERS_MAX = 64 * 1024 * 1024;

/** Decoders that pass over what is no base64 would pass over tampering too. */
const base64 = z
  .string()
  .refine((text) => Buffer.from(text, 'base64').toString('base64') === text, 'is no base64');

const envelope = z.strictObject({
  payload: base64,
  payloadType: z.literal(PAYLOAD_TYPE),
  signatures: z.array(z.strictObject({ sig: base64, keyid: z.literal('').optional() })).length(1),
});

const keyBundle = z.strictObject({
  mediaType: z.literal(BUNDLE_TYPE),
  verificationMaterial: z.strictObject({
    publicKey: z.strictObject({ hint: z.string().optional() }),
    tlogEntries: z.array(z.never()).optional(),
  }),
  dsseEnvelope: envelope,
});

const anyBundle = z.object({
  verificationMaterial: z.record(z.string(), z.unknown()),
  dsseEnvelope: envelope,
});

const digest = z.string().regex(/^[0-9a-f]{64}$/, 'is no SHA-256');

const statementSchema = z.object({
  _type: z.literal(STATEMENT_TYPE),
  subject: z.array(z.object({ name: z.string(), digest: z.object({ sha256: digest }) })).length(1),
  predicate: z.object({
    serialization: z.object({ ignore_paths: z.array(z.string()).default([]) }),
    resources: z.array(z.object({ name: z.string(), digest })),
  }),
});

const kindSchema = z.object({
  predicateType: z.string(),
  predicate: z.object({
    serialization: z.object({ method: z.string(), hash_type: z.string() }),
    resources: z.array(z.object({ algorithm: z.string() })),
  }),
});

/**
 * Reads a `model.sig`: what it lists, and what proves it.
 * @throws WeldlineError `attest.signature-invalid` for what is no such file, `attest.unsupported`
 *   for one made in a way that weldline does not know
 */
export function parseModelSignature(text: string): ModelSignature {
  if (text.length > SIGNATURE_CHARACTERS_MAX) throw invalid(`it has ${text.length} characters`);
  const document = parseJson(text, 'it');
  const { verificationMaterial: material, dsseEnvelope } = check(anyBundle, document);
  const payload = Buffer.from(dsseEnvelope.payload, 'base64');
  return { ...readStatement(payload), payload, proof: proofOf(material, document) };
}

function proofOf(material: Readonly<Record<string, unknown>>, document: unknown): Proof {
  if ('certificate' in material) return { kind: 'keyless', bundle: document };
  if ('x509CertificateChain' in material) {
    throw unsupported('it was made with a certificate of one’s own (method certificate)');
  }
  const { verificationMaterial, dsseEnvelope } = check(keyBundle, document);
  const { hint } = verificationMaterial.publicKey;
  const signature = Buffer.from(dsseEnvelope.signatures[0]?.sig ?? '', 'base64');
  return { kind: 'key', ...(hint !== undefined && { hint }), signature };
}

function readStatement(payload: Buffer): Pick<ModelSignature, 'name' | 'files' | 'ignoredPaths'> {
  const document = parseJson(decode(payload), 'what it signs');
  const { predicateType } = check(z.object({ predicateType: z.string() }), document);
  if (predicateType !== PREDICATE_TYPE) {
    throw unsupported(`it signs a ${JSON.stringify(predicateType.slice(0, 100))}`);
  }
  const { serialization, resources } = check(kindSchema, document).predicate;
  if (serialization.method !== 'files') throw unsupported('it signs pieces of files (shards)');
  const hash = resources.find(({ algorithm }) => algorithm !== 'sha256')?.algorithm;
  if (serialization.hash_type !== 'sha256' || hash !== undefined) {
    throw unsupported(`its digests are not SHA-256 but ${hash ?? serialization.hash_type}`);
  }
  const { subject, predicate } = check(statementSchema, document);
  const files = predicate.resources.map(({ name, digest: sha256 }) => ({ path: name, sha256 }));
  if (new Set(files.map(({ path }) => path)).size !== files.length) {
    throw invalid('it lists a file twice');
  }
  const [{ name, digest: root } = { name: '', digest: { sha256: '' } }] = subject;
  if (rootDigest(files) !== root.sha256) {
    throw invalid('the digest of the whole does not follow from the files it lists');
  }
  return { name, files, ignoredPaths: predicate.serialization.ignore_paths };
}

function decode(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw invalid('what it signs is no text');
  }
}

function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalid(`${what} is no JSON`, error);
  }
}

function check<Schema extends z.ZodType>(schema: Schema, document: unknown): z.infer<Schema> {
  const parsed = schema.safeParse(document);
  if (parsed.success) return parsed.data;
  throw invalid(problemsOf(parsed.error));
}

function invalid(problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError(
    'attest.signature-invalid',
    `model.sig is no signature of a model: ${problem}. Fetch it again from where the model was ` +
      'published.',
    { cause },
  );
}

function unsupported(problem: string): WeldlineError {
  return new WeldlineError(
    'attest.unsupported',
    `weldline cannot check this model.sig: ${problem}. Check it with the tool that made it ` +
      '(model_signing verify, from PyPI).',
  );
}
