import { join } from 'node:path';
import type { ConversionManifest } from '../conversion/conversion-step.ts';
import { CONVERSION_FILE } from '../conversion/conversion-store.ts';
import { digestFile } from '../engine/durable-files.ts';
import { assert, WeldlineError } from '../engine/errors.ts';
import { MANIFEST_FILE, type Manifest } from '../engine/manifest.ts';
import type { ArtefactFile, ArtefactId } from '../publishers/publisher.ts';
import { finishedConversion } from './finished-conversion.ts';
import type { Converted, ReleaseParts } from './quality-types.ts';

/** A part of a release that is published on its own: its weights, before anything is said of them. */
export interface ArtefactContents extends ArtefactId {
  readonly manifestDigest: string;
  /** Weights and what lies beside them, the manifest last. */
  readonly files: readonly ArtefactFile[];
  /** What it is, where it is no merged checkpoint. */
  readonly conversion?: ConversionManifest;
}

/** The id of an artefact, by what the workflow calls its part. */
export function artefactId(release: string, part: string | undefined): ArtefactId {
  return part === undefined || part === 'merged' ? { release } : { release, part };
}

/**
 * @param part the id of a conversion; anything else is the merged checkpoint
 * @throws WeldlineError `convert.missing` if the conversion is not the one that was evaluated,
 *   `verify.digest-mismatch` if the merge is not the one that was verified
 */
export async function artefactContents(
  release: ReleaseParts,
  manifest: Pick<Manifest, 'files'>,
  part: string | undefined,
): Promise<ArtefactContents> {
  const converted = release.quality?.converted.find(({ id }) => id === part);
  const id = artefactId(release.inputs.artefact, part);
  if (converted === undefined) {
    assert(id.part === undefined, `the release has no part ${part}`);
    const { directory, manifestDigest } = release.sealed;
    const files = await filesIn(directory, manifest.files, MANIFEST_FILE);
    requireSealed(directory, manifestDigest, files.at(-1)?.sha256);
    return { ...id, manifestDigest, files };
  }
  requireJudged(release, converted);
  const { manifest: conversion } = await finishedConversion(converted);
  const { directory, manifestDigest } = converted;
  return {
    ...id,
    manifestDigest,
    files: await filesIn(directory, conversion.files, CONVERSION_FILE),
    conversion,
  };
}

async function filesIn(
  directory: string,
  files: Manifest['files'] | ConversionManifest['files'],
  manifestFile: string,
): Promise<readonly ArtefactFile[]> {
  const source = join(directory, manifestFile);
  const manifest = { path: manifestFile, ...(await digestFile(source)), source };
  return [...files.map((file) => ({ ...file, source: join(directory, file.path) })), manifest];
}

/** The next release of the same plan may have made the merge again, by another version. */
function requireSealed(directory: string, sealed: string, found: string | undefined): void {
  if (found === sealed) return;
  throw new WeldlineError(
    'verify.digest-mismatch',
    `${join(directory, MANIFEST_FILE)} is not the manifest of the merge that was verified: it was ` +
      'changed, or the merge was made again. Nothing is published. Release again.',
  );
}

/** A stage that was resumed may have made the files again after others of them were judged. */
function requireJudged({ quality }: ReleaseParts, { id, manifestDigest }: Converted): void {
  const judged = quality?.evaluated.find(({ candidate }) => candidate === id);
  if (judged === undefined || judged.digest === manifestDigest) return;
  throw new WeldlineError(
    'convert.missing',
    `The files of ${id} that were evaluated were made again since, so nobody judged those that are ` +
      'there. Release again: they are evaluated.',
  );
}

/** Where the archive of an artefact keeps an adapter. */
const ARCHIVE = 'adapters';

/**
 * The adapters' files as they were merged: the asset that a release cannot be made again without.
 * @param roots where the inputs are, by their ids
 */
export function archivedAdapters(
  manifest: Pick<Manifest, 'inputs'>,
  roots: Readonly<Record<string, string>>,
): readonly ArtefactFile[] {
  return manifest.inputs
    .filter(({ id }) => id !== 'base')
    .flatMap(({ id, files }) =>
      files.map((file) => ({
        ...file,
        path: `${ARCHIVE}/${id}/${file.path}`,
        source: join(roots[id] ?? '', file.path),
      })),
    );
}
