import { dirname } from 'node:path';
import { BOM_FILE, billOfMaterials } from '../attest/bom.ts';
import { SIGNATURE_FILE, signModel } from '../attest/model-signature.ts';
import { provenanceStatement } from '../attest/provenance.ts';
import { PROVENANCE_FILE } from '../attest/provenance-terms.ts';
import { createSigner, type Signer, type SigningEnvironment } from '../attest/signer.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import type { ConversionManifest } from '../conversion/conversion-step.ts';
import { readConversionManifest } from '../conversion/conversion-store.ts';
import { sha256Of } from '../engine/canonical-json.ts';
import { assert, WeldlineError } from '../engine/errors.ts';
import type { Manifest } from '../engine/manifest.ts';
import { readManifest } from '../engine/verify/verify-merge.ts';
import { MODELFILE } from '../publishers/ollama/modelfile.ts';
import type { Artefact, ArtefactFile } from '../publishers/publisher.ts';
import { artefactNameOf, RELEASE_FILE } from '../publishers/publisher.ts';
import { type ConversionCardOptions, conversionCard } from '../report/conversion-card.ts';
import { modelCard } from '../report/model-card.ts';
import { type ArtefactRecord, formatRecord, type ReleaseFacts } from '../report/release-facts.ts';
import type { ReportFacts } from '../report/report-facts.ts';
import type { FileDigests } from '../sources/file-digests.ts';
import { type ArtefactContents, archivedAdapters, artefactContents } from './artefact-contents.ts';
import { assembleArtefact, type ReleaseDocument } from './assemble-artefact.ts';
import { type AttestedArtefact, attestationFacts } from './attestation-facts.ts';
import type { Dependencies } from './dependencies.ts';
import { describeArtefact } from './describe-artefact.ts';
import { modelfileFor } from './modelfile.ts';
import type { PublishInput, ReleaseParts } from './quality-types.ts';

export interface ReleasedArtefact {
  readonly artefact: Artefact;
  /** Those of its files that were judged, without adapters and what is said of them. */
  readonly judged: readonly ArtefactFile[];
}

/**
 * One artefact of a release as it goes to its targets.
 * @param readReport only asked where documents are not written yet, since it reads all results
 */
export async function releasedArtefact(
  { home, access, publishing, identity }: Dependencies,
  input: PublishInput,
  facts: ReleaseFacts,
  readReport: () => Promise<ReportFacts>,
  signal: AbortSignal,
): Promise<ReleasedArtefact> {
  const manifest = await readManifest(input.sealed.directory);
  const contents = await artefactContents(input, manifest, input.part);
  // Conversions name the adapters by digest; the merged checkpoint carries them.
  const isArchived = contents.part === undefined && input.recipe.archiveAdapters !== false;
  const { roots } = input;
  const adapters = isArchived && roots !== undefined ? archivedAdapters(manifest, roots) : [];
  await requireAsMerged(access.digests, adapters, signal);
  const description = describeArtefact(facts, contents);
  const { conversion } = contents;
  const artefact = await assembleArtefact(home, {
    release: input,
    contents,
    adapters,
    description,
    write: async (files) => {
      const report = await readReport();
      const results = report.evaluation?.results ?? [];
      const mergedRepo = input.recipe.publish.flatMap((target) =>
        'hub' in target && takesMerged(target) ? [target.hub.repo] : [],
      )[0];
      const texts =
        conversion === undefined
          ? [{ path: 'README.md', text: modelCard(facts, report) }]
          : await textsOf(input, facts, contents, conversion, { mergedRepo, results });
      const record = await recordOf(input, contents, manifest);
      const hubEndpoint = publishing.hub.endpoint;
      const attested = { release: input, facts, record, description, results, hubEndpoint };
      return writeDocuments({ ...attested, files }, texts, signerOf(input, identity));
    },
  });
  return { artefact, judged: contents.files };
}

/**
 * A release may wait for a person for weeks, and an adapter's directory is not weldline's: the training
 * may have gone on in it. Found here, before anything is said of the artefact or sent.
 * @throws WeldlineError `publish.source-changed`
 */
async function requireAsMerged(
  digests: FileDigests,
  adapters: readonly ArtefactFile[],
  signal: AbortSignal,
): Promise<void> {
  for (const { source, sha256 } of adapters) {
    if ((await digests.findChanged('', [{ path: source, sha256 }], signal)) === undefined) continue;
    throw new WeldlineError(
      'publish.source-changed',
      `${source} is not there any more as it was merged, so it cannot be published with what was ` +
        'made of it. Put it back and resume, or cancel and release again with the adapter as it ' +
        'is now.',
    );
  }
}

/** The card of a conversion, and of a GGUF what makes a model of Ollama of it. */
async function textsOf(
  { sealed }: ReleaseParts,
  facts: ReleaseFacts,
  contents: ArtefactContents,
  conversion: ConversionManifest,
  options: ConversionCardOptions,
): Promise<readonly ReleaseDocument[]> {
  const name = artefactNameOf(contents);
  const card = (warnings: readonly string[] = []): ReleaseDocument => {
    const shown = { ...conversion, warnings: [...conversion.warnings, ...warnings] };
    return { path: 'README.md', text: conversionCard(facts, name, shown, options) };
  };
  if (conversion.kind !== 'gguf') return [card()];
  const [first] = contents.files;
  assert(first !== undefined, 'a conversion without files');
  const { id, name: called } = facts.baseCard?.license ?? {};
  const { text, warnings } = await modelfileFor(
    dirname(first.source),
    sealed.directory,
    called ?? id,
  );
  return [card(warnings), ...(text === undefined ? [] : [{ path: MODELFILE, text }])];
}

function takesMerged({ artefacts }: PublishTarget): boolean {
  return artefacts === undefined || artefacts.includes('merged');
}

/** Asked for when it signs: an identity that is proved by a token is proved for minutes. */
function signerOf({ recipe }: PublishInput, identity: SigningEnvironment) {
  const { sign } = recipe;
  return sign === undefined ? undefined : () => createSigner(sign, identity);
}

/** What is said of an artefact, each document of the files and the documents before it. */
async function writeDocuments(
  attested: Omit<AttestedArtefact, 'record'> & {
    readonly record: Omit<ArtefactRecord, 'contents'>;
  },
  texts: readonly ReleaseDocument[],
  openSigner: (() => Promise<Signer>) | undefined,
): Promise<readonly ReleaseDocument[]> {
  const documents = [...texts];
  const all = (): readonly ArtefactFile[] => [...attested.files, ...documents.map(asFile)];
  const add = (path: string, text: string): void => {
    documents.push({ path, text });
  };
  const factsNow = () => {
    const contents = all().map(({ path, size, sha256 }) => ({ path, size, sha256 }));
    const record = { ...attested.record, contents };
    return { record, facts: attestationFacts({ ...attested, record, files: all() }) };
  };
  add(BOM_FILE, billOfMaterials(factsNow().facts));
  add(RELEASE_FILE, formatRecord(attested.facts, factsNow().record));
  add(PROVENANCE_FILE, provenanceStatement(factsNow().facts));
  if (openSigner !== undefined) {
    const name = artefactNameOf(attested.record);
    add(SIGNATURE_FILE, await signModel({ name, files: all(), signer: await openSigner() }));
  }
  return documents;
}

function asFile({ path, text }: ReleaseDocument): ArtefactFile {
  return { path, size: Buffer.byteLength(text), sha256: sha256Of(text), source: '' };
}

async function recordOf(
  release: ReleaseParts,
  contents: ArtefactContents,
  merge: Manifest,
): Promise<Omit<ArtefactRecord, 'contents'>> {
  const { part, conversion, manifestDigest } = contents;
  return {
    release: contents.release,
    ...(part === undefined ? {} : { part }),
    kind: conversion?.kind ?? 'merged',
    manifestDigest,
    ...(conversion === undefined
      ? { conversions: await conversionsOf(release) }
      : { conversion, merge }),
    stages: (release.stages ?? []).flatMap(({ stage, startedAtMs, finishedAtMs }) => {
      if (startedAtMs === undefined) return [];
      const startedAt = new Date(startedAtMs).toISOString();
      if (finishedAtMs === undefined) return [{ stage, startedAt }];
      return [{ stage, startedAt, finishedAt: new Date(finishedAtMs).toISOString() }];
    }),
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
