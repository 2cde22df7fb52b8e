import { CONVERSION_FILE } from '../conversion/conversion-store.ts';
import { assert, WeldlineError } from '../engine/errors.ts';
import { MANIFEST_FILE } from '../engine/manifest.ts';
import { conversionCard } from '../report/conversion-card.ts';
import { modelCard } from '../report/model-card.ts';
import type { ReleaseFacts } from '../report/release-facts.ts';
import type { ReportFacts } from '../report/report-facts.ts';
import { finishedConversion } from './finished-conversion.ts';
import type { Converted, ReleaseParts } from './quality-types.ts';

/** A part of a release that is published on its own, and what is said of it. */
export interface PublishedPart {
  readonly artefact: string;
  readonly source: string;
  readonly files: readonly {
    readonly path: string;
    readonly size: number;
    readonly sha256: string;
  }[];
  readonly manifestFile: string;
  readonly manifestDigest: string;
  readonly texts: Readonly<Record<string, string>>;
}

/** Artefacts beside the merged checkpoint have its name and their own behind it. */
export function partName(artefact: string, part: string | undefined): string {
  return part === undefined || part === 'merged' ? artefact : `${artefact}-${part}`;
}

/**
 * @param readReport only asked for what shows it, since it reads all results
 * @param part the id of a conversion; anything else is the merged checkpoint
 * @throws WeldlineError `convert.missing` if the conversion is not the one that was evaluated
 */
export async function publishedPart(
  release: ReleaseParts,
  facts: ReleaseFacts,
  readReport: () => Promise<ReportFacts>,
  part: string | undefined,
): Promise<PublishedPart> {
  const converted = release.quality?.converted.find(({ id }) => id === part);
  if (converted === undefined) {
    assert(part === undefined || part === 'merged', `the release has no part ${part}`);
    return {
      artefact: release.inputs.artefact,
      source: release.sealed.directory,
      files: facts.files,
      manifestFile: MANIFEST_FILE,
      manifestDigest: release.sealed.manifestDigest,
      texts: { 'README.md': modelCard(facts, await readReport()), 'release.json': toJson(facts) },
    };
  }
  return conversionPart(release, facts, converted);
}

async function conversionPart(
  release: ReleaseParts,
  facts: ReleaseFacts,
  converted: Converted,
): Promise<PublishedPart> {
  const { id, directory, manifestDigest } = converted;
  requireJudged(release, converted);
  const { manifest: conversion } = await finishedConversion(converted);
  const artefact = partName(release.inputs.artefact, id);
  const { files, insight, tensors, verification, configEdits, rules, ...common } = facts;
  const own = { ...common, artefact, manifestDigest, conversion };
  return {
    artefact,
    source: directory,
    files: conversion.files,
    manifestFile: CONVERSION_FILE,
    manifestDigest,
    texts: {
      'README.md': conversionCard(facts, artefact, conversion),
      'release.json': toJson(own),
    },
  };
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

function toJson(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
