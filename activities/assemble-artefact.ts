import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { digestOf, sha256Of } from '../engine/canonical-json.ts';
import { toWriteError } from '../engine/disk-errors.ts';
import { digestFile, syncDirectory, writeFileDurably } from '../engine/durable-files.ts';
import { assert, systemErrorCode } from '../engine/errors.ts';
import {
  type Artefact,
  type ArtefactDescription,
  type ArtefactFile,
  RELEASE_FILE,
} from '../publishers/publisher.ts';
import type { ArtefactContents } from './artefact-contents.ts';
import type { ReleaseParts } from './quality-types.ts';
import { artefactDirectory } from './workspace.ts';

/** Lists the documents of an artefact; written last. */
const LIST_FILE = 'documents.json';

/** A text that is published beside the weights. */
export interface ReleaseDocument {
  readonly path: string;
  readonly text: string;
}

export interface ArtefactToAssemble {
  readonly release: ReleaseParts;
  readonly contents: ArtefactContents;
  readonly adapters: readonly ArtefactFile[];
  readonly description: ArtefactDescription;
  /**
   * Writes what is said of the files, each document knowing those before it; `release.json` among
   * them.
   */
  readonly write: (files: readonly ArtefactFile[]) => Promise<readonly ReleaseDocument[]>;
}

/**
 * An artefact with all its documents. They are made once and kept: every target gets the same bytes,
 * though a signature is never the same twice. Whoever is first with them wins.
 */
export async function assembleArtefact(
  home: string,
  { release, contents, adapters, description, write }: ArtefactToAssemble,
): Promise<Artefact> {
  const place = artefactDirectory(home, keyOf(release, contents));
  const files = [...contents.files, ...adapters];
  const documents = await inTurn(
    place,
    async () => (await readDocuments(place)) ?? (await makeDocuments(place, files, write)),
  );
  const isRelease = ({ path }: ArtefactFile): boolean => path === RELEASE_FILE;
  const { release: name, part, manifestDigest } = contents;
  return {
    release: name,
    ...(part === undefined ? {} : { part }),
    manifestDigest,
    planDigest: release.planDigest,
    files: [
      ...files,
      ...documents.filter((file) => !isRelease(file)),
      ...documents.filter(isRelease),
    ],
    description,
  };
}

const turns = new Map<string, Promise<unknown>>();

/**
 * Targets are published to side by side, and each signature would be made for nothing but one, and
 * logged in public. Of two processes each makes its own; the first counts.
 */
async function inTurn<T>(place: string, work: () => Promise<T>): Promise<T> {
  const before = turns.get(place) ?? Promise.resolve();
  const turn = before.then(work, work);
  turns.set(place, turn);
  try {
    return await turn;
  } finally {
    if (turns.get(place) === turn) turns.delete(place);
  }
}

/**
 * Of all that documents depend on within a run, but not of this version: one that comes while a
 * release waits must not give another target other documents.
 */
function keyOf(release: ReleaseParts, contents: ArtefactContents): string {
  const { recipe, recipeDigest, run, quality } = release;
  return digestOf({
    part: contents.part ?? null,
    manifestDigest: contents.manifestDigest,
    recipe: recipeDigest,
    name: [recipe.name, recipe.version],
    run: [run.workflowId, run.runId],
    decision: quality?.decision ?? null,
    approval: quality?.approval ?? null,
  });
}

type Listed = Omit<ArtefactFile, 'source'>;

/** Undefined where they were never finished, or are not what was finished. */
async function readDocuments(place: string): Promise<readonly ArtefactFile[] | undefined> {
  try {
    const listed = JSON.parse(await readFile(join(place, LIST_FILE), 'utf8')) as readonly Listed[];
    const documents = listed.map((file) => ({ ...file, source: join(place, file.path) }));
    for (const { source, sha256 } of documents) {
      if ((await digestFile(source)).sha256 !== sha256) return undefined;
    }
    return documents;
  } catch {
    return undefined;
  }
}

async function makeDocuments(
  place: string,
  files: readonly ArtefactFile[],
  write: ArtefactToAssemble['write'],
): Promise<readonly ArtefactFile[]> {
  const documents = await write(files);
  const partial = `${place}.${randomBytes(6).toString('hex')}.partial`;
  await mkdir(partial, { recursive: true });
  try {
    const listed: Listed[] = [];
    for (const { path, text } of documents) {
      await writeFileDurably(join(partial, path), text);
      listed.push({ path, size: Buffer.byteLength(text), sha256: sha256Of(text) });
    }
    await writeFileDurably(join(partial, LIST_FILE), `${JSON.stringify(listed, null, 2)}\n`);
    await takePlace(partial, place);
    await syncDirectory(dirname(place));
  } catch (error) {
    throw toWriteError(error, place);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  const kept = await readDocuments(place);
  assert(kept !== undefined, `the documents in ${place} are gone as soon as they were written`);
  return kept;
}

/** Leaves what another attempt has finished meanwhile: it may be published already. */
async function takePlace(partial: string, place: string): Promise<void> {
  try {
    await rename(partial, place);
  } catch (error) {
    if (!['EEXIST', 'ENOTEMPTY'].includes(systemErrorCode(error) ?? '')) throw error;
    if ((await readDocuments(place)) !== undefined) return;
    // Nothing that was finished, or damaged since: no target could take it.
    await rm(place, { recursive: true, force: true });
    await rename(partial, place);
  }
}
