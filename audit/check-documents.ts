/** Checks of the documents that travel with a release: what they claim against what is there. */
import { isDeepStrictEqual } from 'node:util';
import { BOM_FILE, parseBillOfMaterials } from '../attest/bom.ts';
import { type Provenance, parseProvenance } from '../attest/parse-provenance.ts';
import { PROVENANCE_FILE } from '../attest/provenance-terms.ts';
import { RELEASE_FILE } from '../engine/manifest.ts';
import { readTextFile } from '../engine/model-files.ts';
import type { FoundFile } from './artefact-digests.ts';
import type { ArtefactRecord, ReleaseRecord } from './artefact-record.ts';
import { wasPruned } from './check-files.ts';
import { type Finding, failed, namesOf, notChecked, verified } from './claim.ts';
import type { OpenedArtefact } from './open-artefact.ts';

interface Subject {
  readonly artefact: OpenedArtefact;
  readonly record: ArtefactRecord;
  readonly found: ReadonlyMap<string, FoundFile>;
}

/** The provenance: its subjects by their digests, and that it tells what the release tells. */
export async function checkProvenance(subject: Subject): Promise<Finding> {
  const { artefact, record, found } = subject;
  if (!found.has(PROVENANCE_FILE)) return notChecked('it has no provenance');
  const provenance = parseProvenance(await readTextFile(artefact.files, PROVENANCE_FILE));
  const problems = [
    ...differencesOf(subject, provenance.subjects),
    ...(record.release === undefined ? [] : contradictions(provenance, record.release)),
  ];
  if (problems.length > 0) return contradicted(PROVENANCE_FILE, problems);
  const { workflowId, runId } = provenance.run;
  const count = provenance.subjects.length;
  return verified(`of ${count} files, base, adapters and plan; made by ${workflowId} (${runId})`);
}

/** The bill of materials: the digests of what it lists. */
export async function checkBom(subject: Subject): Promise<Finding> {
  const { artefact, record, found } = subject;
  if (!found.has(BOM_FILE)) return notChecked('it has no bill of materials');
  const bom = parseBillOfMaterials(await readTextFile(artefact.files, BOM_FILE));
  const problems = [
    ...differencesOf(subject, bom.files),
    ...(bom.manifestDigest === record.manifestDigest ? [] : [record.manifestFile]),
    ...(record.release === undefined || record.release.artefact === bom.artefact
      ? []
      : ['the name of the artefact']),
  ];
  if (problems.length > 0) return contradicted(BOM_FILE, problems);
  return verified(`a bill of materials of ${bom.files.length} files, with their digests`);
}

/** Files of which a document says another digest, or that it should name and does not. */
function differencesOf(
  { record, found }: Subject,
  listed: readonly { readonly path: string; readonly sha256: string }[],
): string[] {
  const wrong = listed
    .filter(({ path, sha256 }) => !wasPruned(path, found) && found.get(path)?.sha256 !== sha256)
    .map(({ path }) => path);
  const names = new Set(listed.map(({ path }) => path));
  const own = [...record.files.map(({ path }) => path), record.manifestFile];
  return [...wrong, ...own.filter((path) => !names.has(path))];
}

function contradictions(provenance: Provenance, release: ReleaseRecord): string[] {
  const models = provenance.models.map(({ id, commit, files }) => ({
    id,
    commit,
    files: byPath(files),
  }));
  const inputs = release.inputs.map(({ id, commit, files }) => ({
    id,
    commit,
    files: byPath(files),
  }));
  const { workflowId, runId } = provenance.run;
  const pairs: [string, unknown, unknown][] = [
    ['the name of the artefact', provenance.artefact, release.artefact],
    ['the plan', provenance.plan, release.plan],
    ['the engine', provenance.engine, release.engine],
    ['the options', provenance.options, release.options],
    ['the run', `${workflowId}/${runId}`, `${release.run.workflowId}/${release.run.runId}`],
    ['base and adapters', models, inputs],
  ];
  return pairs.flatMap(([what, one, other]) =>
    isDeepStrictEqual(one, other) ? [] : [`${what} (not as in ${RELEASE_FILE})`],
  );
}

function byPath(
  files: readonly { readonly path: string; readonly sha256: string }[],
): Record<string, string> {
  return Object.fromEntries(files.map(({ path, sha256 }) => [path, sha256]));
}

function contradicted(document: string, problems: readonly string[]): Finding {
  return failed(
    'verify.digest-mismatch',
    `${document} does not agree with what is there on: ${namesOf(problems)}. One of them was changed; ` +
      'fetch the release again from where it was published.',
  );
}
