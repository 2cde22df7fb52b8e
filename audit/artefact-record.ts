import { z } from 'zod';
import { CONVERSION_FILE } from '../conversion/conversion-store.ts';
import { sha256Of } from '../engine/canonical-json.ts';
import { WeldlineError } from '../engine/errors.ts';
import {
  inputSchema,
  MANIFEST_FILE,
  type Manifest,
  parseManifest,
  RELEASE_FILE,
} from '../engine/manifest.ts';
import { readTextFile } from '../engine/model-files.ts';
import { problemsOf } from '../engine/schema-problems.ts';
import type { OpenedArtefact } from './open-artefact.ts';

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const fileSchema = z.object({
  path: z.string(),
  size: z.number().int().nonnegative(),
  sha256: digest,
});

/** What is needed of `release.json`; members that are not listed may say anything. */
const releaseSchema = z.looseObject({
  format: z.literal('weldline.release'),
  artefact: z.string(),
  plan: digest,
  manifestDigest: digest,
  engine: z.object({ version: z.string(), format: z.number().int() }),
  run: z.object({ workflowId: z.string(), runId: z.string() }),
  inputs: z.array(inputSchema),
  options: z.record(z.string(), z.union([z.string(), z.number()])),
  /** Of a merged checkpoint, as its manifest has them. */
  files: z.array(fileSchema).optional(),
  /** Every file of the artefact but those that are made after this one. */
  contents: z.array(fileSchema).optional(),
  /** Of a conversion: the manifest of the merge it was made of. */
  merge: z.unknown().optional(),
});

export type ReleaseRecord = z.infer<typeof releaseSchema>;
export type ListedFile = z.infer<typeof fileSchema>;
export type RecordedInput = z.infer<typeof inputSchema>;

const conversionSchema = z.object({
  format: z.literal('weldline.conversion'),
  id: z.string(),
  files: z.array(fileSchema),
});

/** What an artefact says of itself. */
export interface ArtefactRecord {
  /** Absent for a merge or conversion that was never published. */
  readonly release?: ReleaseRecord;
  /** Of the files that matter: `weldline.json` or `conversion.json`. */
  readonly manifestFile: string;
  readonly manifestDigest: string;
  /** Of the merge: its own, or that of the merge that was converted, if the release carries it. */
  readonly merge?: Manifest;
  /** Its id, where it is a conversion. */
  readonly conversion?: string;
  /** The files that its manifest lists. */
  readonly files: readonly ListedFile[];
}

/**
 * What was merged, as far as a release says it: for a `release.json` without its directory.
 * @throws WeldlineError `manifest.invalid`
 */
export async function mergeOfRelease(artefact: OpenedArtefact): Promise<Manifest> {
  const where = `${artefact.name}/${RELEASE_FILE}`;
  const { merge, ...release } = await readRelease(artefact);
  const manifest = merge ?? { ...release, format: 'weldline.merge' };
  return parseManifest(JSON.stringify(manifest), where);
}

/**
 * Reads what an artefact says of itself.
 * @throws WeldlineError `manifest.invalid` for what says nothing, or something that cannot be read
 */
export async function readRecord(artefact: OpenedArtefact): Promise<ArtefactRecord> {
  const { files, name } = artefact;
  const release = files.sizes.has(RELEASE_FILE) ? await readRelease(artefact) : undefined;
  if (files.sizes.has(MANIFEST_FILE)) {
    const text = await readTextFile(files, MANIFEST_FILE);
    const merge = parseManifest(text, `${name}/${MANIFEST_FILE}`);
    return {
      ...(release && { release }),
      manifestFile: MANIFEST_FILE,
      manifestDigest: sha256Of(text),
      merge,
      files: merge.files,
    };
  }
  if (!files.sizes.has(CONVERSION_FILE)) throw nothingSaid(name);
  const text = await readTextFile(files, CONVERSION_FILE);
  const conversion = parse(conversionSchema, text, `${name}/${CONVERSION_FILE}`);
  const merge =
    release?.merge === undefined
      ? undefined
      : parseManifest(JSON.stringify(release.merge), `"merge" in ${name}/${RELEASE_FILE}`);
  return {
    ...(release && { release }),
    manifestFile: CONVERSION_FILE,
    manifestDigest: sha256Of(text),
    ...(merge && { merge }),
    conversion: conversion.id,
    files: conversion.files,
  };
}

async function readRelease({ files, name }: OpenedArtefact): Promise<ReleaseRecord> {
  const text = await readTextFile(files, RELEASE_FILE);
  return parse(releaseSchema, text, `${name}/${RELEASE_FILE}`);
}

function parse<Schema extends z.ZodType>(
  schema: Schema,
  text: string,
  where: string,
): z.infer<Schema> {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw unreadable(where, 'it is no JSON', error);
  }
  const parsed = schema.safeParse(document);
  if (parsed.success) return parsed.data;
  throw unreadable(where, problemsOf(parsed.error), parsed.error);
}

function unreadable(where: string, problem: string, cause: unknown): WeldlineError {
  return new WeldlineError(
    'manifest.invalid',
    `${where} is not what this version of weldline writes and reads: ${problem}. It was changed, or ` +
      'another version made it.',
    { cause },
  );
}

function nothingSaid(name: string): WeldlineError {
  return new WeldlineError(
    'manifest.invalid',
    `${name} has no ${MANIFEST_FILE} and no ${CONVERSION_FILE}: it is no finished merge, conversion or ` +
      'release of weldline.',
  );
}
