import { basename, join } from 'node:path';
import { WeldlineError } from '../engine/errors.ts';
import type { FetchProgress } from '../sources/fetch-blobs.ts';
import { snapshotDirectory } from '../sources/hub-cache.ts';
import { fetchToDisk, locateModel, type ModelAccess } from '../sources/model-input.ts';
import { parseModelReference } from '../sources/reference.ts';
import type { RecordedInput } from './artefact-record.ts';
import { namesOf } from './claim.ts';

/** Where the inputs of a merge are looked for. */
export interface InputSearch {
  readonly access: ModelAccess;
  readonly inputs: readonly RecordedInput[];
  /** Directory of each input that is at hand, by its id: archived adapters. */
  readonly archived: Readonly<Record<string, string>>;
  /** A base that somebody named: a path or a URI. */
  readonly base?: string | undefined;
  /** Whether what is elsewhere is brought here. */
  readonly mayFetch: boolean;
  readonly signal: AbortSignal;
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
  readonly onBytes?: ((count: number) => void) | undefined;
}

export interface FoundInputs {
  /** Directory of each, by its id. */
  readonly roots: Readonly<Record<string, string>>;
  /** What was not found, and what to do about each; empty if all were. */
  readonly missing: readonly string[];
}

/**
 * Finds the inputs of a merge on this machine, or brings them here, and checks them by their digests.
 * @throws WeldlineError `verify.digest-mismatch` for a base or an archive that is another; what
 *   fetching throws
 */
export async function findInputs(search: InputSearch): Promise<FoundInputs> {
  const roots: Record<string, string> = {};
  const missing: string[] = [];
  for (const input of search.inputs) {
    const place = (await givenPlace(input, search)) ?? (await originOf(input, search));
    if (place === undefined) {
      missing.push(howToGet(input, search));
      continue;
    }
    const wrong = await findDifferent(input, place, search);
    if (wrong.length > 0) throw another(input, place, wrong);
    roots[input.id] = place;
  }
  await search.access.digests.save();
  return { roots, missing };
}

/** Where somebody said it is, or where the release keeps it. */
async function givenPlace(input: RecordedInput, search: InputSearch): Promise<string | undefined> {
  if (input.id !== 'base') return search.archived[input.id];
  if (search.base === undefined) return undefined;
  const reference = parseModelReference(search.base, process.cwd());
  if (reference.kind === 'directory') return reference.path;
  if (!search.mayFetch) return undefined;
  return fetchFrom(search.base, undefined, input, search);
}

/** Where the manifest says it came from: in a cache, or there. */
async function originOf(input: RecordedInput, search: InputSearch): Promise<string | undefined> {
  const { model, commit } = input;
  if (!isElsewhere(model)) return undefined;
  const cached = cachedPlace(input, search.access);
  // What is damaged there is fetched again, or as good as missing.
  if (cached !== undefined && (await findDifferent(input, cached, search)).length === 0) {
    return cached;
  }
  if (!search.mayFetch) return undefined;
  return fetchFrom(model, commit, input, search);
}

/** A path would be one of the machine that merged, whatever is there on this one. */
function isElsewhere(model: string): boolean {
  return /^(?:hf|s3|oci|https?):\/\//.test(model);
}

function cachedPlace(
  { model, commit, pin }: RecordedInput,
  { cacheDirectory, modelsDirectory }: ModelAccess,
): string | undefined {
  const reference = parseModelReference(model, process.cwd());
  if (reference.kind === 'hub' && commit !== undefined && /^[0-9a-f]{40}$/.test(commit)) {
    return join(snapshotDirectory(cacheDirectory, reference.repo, commit), reference.folder);
  }
  if (reference.kind !== 'remote' || pin === undefined || !/^[0-9a-f]+$/.test(pin))
    return undefined;
  return join(modelsDirectory, reference.source, pin, 'files');
}

async function fetchFrom(
  model: string,
  revision: string | undefined,
  { id }: RecordedInput,
  { access, signal, onProgress }: InputSearch,
): Promise<string> {
  const role = id === 'base' ? 'base' : 'adapter';
  const located = await locateModel(access, { model, revision, role, signal });
  return fetchToDisk(access, located, { signal, onProgress });
}

async function findDifferent(
  { files }: RecordedInput,
  directory: string,
  { access, signal, onBytes }: InputSearch,
): Promise<string[]> {
  const wrong: string[] = [];
  for (const { path, sha256 } of files) {
    const found = await access.digests
      .digest(join(directory, path), { signal, onBytes })
      .catch((error: unknown) => {
        signal.throwIfAborted();
        if (error instanceof WeldlineError && error.code === 'source.not-found') return undefined;
        throw error;
      });
    if (found !== sha256) wrong.push(path);
  }
  return wrong;
}

function another({ id, model }: RecordedInput, place: string, wrong: string[]): WeldlineError {
  const what = id === 'base' ? 'the base' : `the adapter "${id}"`;
  return new WeldlineError(
    'verify.digest-mismatch',
    `${place} is not ${what} that was merged (${model}): ${namesOf(wrong)} differ from the digests in ` +
      'the manifest, or are missing.',
  );
}

function howToGet(
  { id, model, commit, pin }: RecordedInput,
  { base, mayFetch }: InputSearch,
): string {
  const what = id === 'base' ? 'the base' : `the adapter "${id}"`;
  if (id === 'base' && base !== undefined)
    return `${base} is not on this machine: --fetch brings it here`;
  const state = commit ?? pin;
  if (isElsewhere(model) && !mayFetch) {
    return `${what} is ${model}${state === undefined ? '' : ` (${state})`}, which is not on this machine: --fetch brings it here`;
  }
  const where = `${what} was a directory called ${basename(model)} where it was merged`;
  return id === 'base'
    ? `${where}: name it with --base`
    : `${where}, and this artefact does not carry it (of a release, the merged checkpoint does)`;
}
