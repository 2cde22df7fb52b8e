import { readConversionManifest } from '../conversion/conversion-store.ts';
import { readManifest } from '../engine/verify/verify-merge.ts';
import type { Artefact, ArtefactFile } from '../publishers/publisher.ts';
import { artefactNameOf, RELEASE_FILE } from '../publishers/publisher.ts';
import { conversionCard } from '../report/conversion-card.ts';
import { modelCard } from '../report/model-card.ts';
import { type ArtefactRecord, formatRecord, type ReleaseFacts } from '../report/release-facts.ts';
import type { ReportFacts } from '../report/report-facts.ts';
import { type ArtefactContents, archivedAdapters, artefactContents } from './artefact-contents.ts';
import { assembleArtefact, type ReleaseDocument } from './assemble-artefact.ts';
import type { Dependencies } from './dependencies.ts';
import { describeArtefact } from './describe-artefact.ts';
import type { PublishInput, ReleaseParts } from './quality-types.ts';

export interface ReleasedArtefact {
  readonly artefact: Artefact;
  /** Those of its files that were judged, without what is said of them. */
  readonly judged: readonly ArtefactFile[];
}

/**
 * One artefact of a release as it goes to its targets.
 * @param readReport only asked for what shows it, since it reads all results
 */
export async function releasedArtefact(
  { home }: Pick<Dependencies, 'home'>,
  input: PublishInput,
  facts: ReleaseFacts,
  readReport: () => Promise<ReportFacts>,
): Promise<ReleasedArtefact> {
  const manifest = await readManifest(input.sealed.directory);
  const contents = await artefactContents(input, manifest, input.part);
  // Conversions name the adapters by digest; the merged checkpoint carries them.
  const isArchived = contents.part === undefined && input.recipe.archiveAdapters !== false;
  const { roots } = input;
  const adapters = isArchived && roots !== undefined ? archivedAdapters(manifest, roots) : [];
  const artefact = await assembleArtefact(home, {
    release: input,
    contents,
    adapters,
    description: describeArtefact(facts, contents),
    write: async (files) => {
      const { conversion } = contents;
      const text =
        conversion === undefined
          ? modelCard(facts, await readReport())
          : conversionCard(facts, artefactNameOf(contents), conversion);
      const record = await recordOf(input, contents, files);
      return writeDocuments(facts, record, { path: 'README.md', text });
    },
  });
  return { artefact, judged: [...contents.files, ...adapters] };
}

function writeDocuments(
  facts: ReleaseFacts,
  record: ArtefactRecord,
  card: ReleaseDocument,
): readonly ReleaseDocument[] {
  return [card, { path: RELEASE_FILE, text: formatRecord(facts, record) }];
}

async function recordOf(
  release: ReleaseParts,
  contents: ArtefactContents,
  files: readonly ArtefactFile[],
): Promise<ArtefactRecord> {
  const { part, conversion, manifestDigest } = contents;
  return {
    release: contents.release,
    ...(part === undefined ? {} : { part }),
    kind: conversion?.kind ?? 'merged',
    manifestDigest,
    ...(conversion === undefined ? { conversions: await conversionsOf(release) } : { conversion }),
    stages: (release.stages ?? []).flatMap(({ stage, startedAtMs, finishedAtMs }) => {
      if (startedAtMs === undefined) return [];
      const startedAt = new Date(startedAtMs).toISOString();
      if (finishedAtMs === undefined) return [{ stage, startedAt }];
      return [{ stage, startedAt, finishedAt: new Date(finishedAtMs).toISOString() }];
    }),
    contents: files.map(({ path, size, sha256 }) => ({ path, size, sha256 })),
  };
}

async function conversionsOf({
  quality,
}: ReleaseParts): Promise<NonNullable<ArtefactRecord['conversions']>> {
  const made: NonNullable<ArtefactRecord['conversions']>[number][] = [];
  for (const { id, directory, manifestDigest } of quality?.converted ?? []) {
    const found = await readConversionManifest(directory);
    if (found?.manifestDigest !== manifestDigest) continue;
    const { tools, settings } = found.manifest;
    made.push({ id, manifestDigest, tools, settings });
  }
  return made;
}
