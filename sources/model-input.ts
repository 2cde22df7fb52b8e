/** The inputs of a merge, wherever they are: named, pinned, brought here, opened. */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ADAPTER_CONFIG_FILE } from '../engine/adapters/adapter-config.ts';
import { ADAPTER_PICKLE_FILE } from '../engine/adapters/adapter-format.ts';
import { digestOf } from '../engine/canonical-json.ts';
import { WeldlineError } from '../engine/errors.ts';
import type { ModelFiles } from '../engine/model-files.ts';
import type { Plan, PlanPreview } from '../engine/plan/plan.ts';
import type { MergeInput } from '../engine/plan/plan-merge.ts';
import { isSideFile } from '../engine/plan/side-files.ts';
import { INDEX_FILE } from '../engine/safetensors/weight-index.ts';
import { type FetchProgress, fetchModel } from './fetch-model.ts';
import type { FileDigests } from './file-digests.ts';
import { snapshotDirectory } from './hub-cache.ts';
import type { HubConnection } from './hub-connection.ts';
import { type HubFile, resolveHubModel } from './hub-model.ts';
import { hubModelFiles } from './hub-model-files.ts';
import { openModelDirectory } from './model-directory.ts';
import { type HubReference, parseModelReference } from './reference.ts';
import { selectAdapterFiles, selectBaseFiles } from './select-files.ts';

export type ModelRole = 'base' | 'adapter';

/** Where a model is: a directory, or files of a hub commit. */
export type LocatedModel = { readonly kind: 'directory'; readonly path: string } | LocatedOnHub;

interface LocatedOnHub {
  readonly kind: 'hub';
  readonly repo: string;
  readonly revision: string;
  readonly commit: string;
  readonly folder: string;
  /** The files that are needed of it. */
  readonly files: readonly HubFile[];
}

/** A model pinned to what it is now: a hub commit, or the digest of a directory's files. */
export type ResolvedModel =
  | { readonly kind: 'directory'; readonly path: string; readonly digest: string }
  | LocatedOnHub;

/** What it takes to reach models. */
export interface ModelAccess {
  readonly hub: HubConnection;
  /** The cache that Hugging Face tools share. */
  readonly cacheDirectory: string;
  readonly digests: FileDigests;
}

export interface LocateModelOptions {
  /** An absolute path, or `hf://org/name[@revision][/folder]`. */
  readonly model: string;
  /** For a hub model, in place of the one in `model`. */
  readonly revision?: string | undefined;
  readonly role: ModelRole;
  readonly signal?: AbortSignal | undefined;
}

export interface ResolveModelOptions extends LocateModelOptions {
  readonly onBytes?: ((count: number) => void) | undefined;
}

/**
 * Finds a model. Of a directory nothing is read; of a hub, the commit and its listing.
 * @throws WeldlineError `source.*`, `hub.*`, `checkpoint.*`, `adapter.*`
 */
export async function locateModel(
  access: ModelAccess,
  options: LocateModelOptions,
): Promise<LocatedModel> {
  const reference = parseModelReference(options.model, process.cwd());
  if (reference.kind === 'directory') return { kind: 'directory', path: reference.path };
  return locateOnHub(access, reference, options);
}

/**
 * Pins a model. A local directory is read once for its digest (remembered for the next time).
 * @throws WeldlineError `source.*`, `hub.*`, `checkpoint.*`, `adapter.*`
 */
export async function resolveModel(
  access: ModelAccess,
  options: ResolveModelOptions,
): Promise<ResolvedModel> {
  const located = await locateModel(access, options);
  if (located.kind === 'hub') return located;
  const digest = await digestDirectory(access, located.path, options);
  return { ...located, digest };
}

async function digestDirectory(
  access: ModelAccess,
  path: string,
  { signal, onBytes }: ResolveModelOptions,
): Promise<string> {
  const files = await openModelDirectory(path);
  const relevant = [...files.sizes.keys()].filter(isReleaseInput).sort();
  const entries: [string, string][] = [];
  for (const name of relevant) {
    entries.push([name, await access.digests.digest(join(path, name), { signal, onBytes })]);
  }
  await access.digests.save();
  return digestOf(entries);
}

/** Whether a file can influence a release: weights, their index, configurations, tokenizers. */
function isReleaseInput(path: string): boolean {
  return (
    /^[^/]+\.safetensors$/.test(path) ||
    path === INDEX_FILE ||
    path === ADAPTER_CONFIG_FILE ||
    path === ADAPTER_PICKLE_FILE ||
    isSideFile(path)
  );
}

async function locateOnHub(
  access: ModelAccess,
  reference: HubReference,
  options: LocateModelOptions,
): Promise<LocatedOnHub> {
  const { repo, folder } = reference;
  const revision = options.revision ?? reference.revision;
  const model = await resolveHubModel(access.hub, { repo, revision, signal: options.signal });
  const select = options.role === 'base' ? selectBaseFiles : selectAdapterFiles;
  const files = select(model.files, { folder, name: options.model });
  return { kind: 'hub', repo, revision, commit: model.commit, folder, files };
}

/**
 * The hub commit, with the folder where a repository holds several models (`checkpoint-500`), or the
 * digest of the directory: what tells two models, and two states of one, apart.
 */
export function identityOf(model: ResolvedModel): string {
  if (model.kind === 'directory') return model.digest;
  return model.folder === '' ? model.commit : `${model.commit}/${model.folder}`;
}

/** Bytes that are not in the cache yet. */
export async function downloadBytes(access: ModelAccess, model: LocatedModel): Promise<number> {
  if (model.kind === 'directory') return 0;
  const snapshot = snapshotDirectory(access.cacheDirectory, model.repo, model.commit);
  let bytes = 0;
  for (const file of model.files) {
    const cached = await stat(join(snapshot, file.path)).catch(() => undefined);
    if (cached?.size !== file.size) bytes += file.size;
  }
  return bytes;
}

/** The files of a model where they are now, for headers and configurations. */
export async function openRemotely(access: ModelAccess, model: LocatedModel): Promise<ModelFiles> {
  if (model.kind === 'directory') return openModelDirectory(model.path);
  return hubModelFiles(access.hub, model, model.folder);
}

/**
 * Brings a model to this machine.
 * @returns the directory that holds its files
 * @throws WeldlineError `hub.*`, `disk.*`
 */
export async function fetchToDisk(
  access: ModelAccess,
  model: LocatedModel,
  options: {
    readonly signal?: AbortSignal | undefined;
    readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
  },
): Promise<string> {
  if (model.kind === 'directory') return model.path;
  const { cacheDirectory } = access;
  const fetched = await fetchModel(access.hub, {
    model,
    files: model.files,
    cacheDirectory,
    ...options,
  });
  return join(fetched.directory, model.folder);
}

export interface OpenInputOptions {
  /**
   * Where it was fetched to; without it, small files of a hub model are read over the network, and
   * weights not at all.
   */
  readonly directory?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called with the bytes that are read for digests. */
  readonly onBytes?: ((count: number) => void) | undefined;
}

export interface OpenedInput extends MergeInput {
  /** The digest of one of its files, if none of it need be read for that. */
  known(path: string): Promise<string | undefined>;
}

/** A model as an input of a plan. Digests that the hub pins are not computed again. */
export async function openInput(
  access: ModelAccess,
  model: LocatedModel,
  { directory, signal, onBytes }: OpenInputOptions = {},
): Promise<OpenedInput> {
  const pinned = new Map<string, string>();
  if (model.kind === 'hub') {
    const prefix = model.folder === '' ? '' : `${model.folder}/`;
    for (const { path, sha256 } of model.files) {
      if (sha256 !== undefined) pinned.set(path.slice(prefix.length), sha256);
    }
  }
  const local = directory ?? (model.kind === 'directory' ? model.path : undefined);
  if (local === undefined) {
    const files = await openRemotely(access, model);
    return {
      files,
      known: async (path) => pinned.get(path),
      digest: async (path) => pinned.get(path) ?? digestSource(files, path),
    };
  }
  const files = await openModelDirectory(local);
  const { digests } = access;
  for (const [path, sha256] of pinned) {
    if (files.sizes.has(path)) await digests.remember(join(local, path), sha256);
  }
  return {
    files,
    known: (path) => digests.known(join(local, path)),
    digest: (path) => digests.digest(join(local, path), { signal, onBytes }),
  };
}

/** Bytes that must be read for the digests that a preview lacks. */
export async function unreadBytes(
  preview: PlanPreview,
  inputs: Readonly<Record<string, OpenedInput>>,
): Promise<number> {
  let bytes = 0;
  for (const { id, files } of preview.inputs) {
    for (const { path, size } of files) {
      if ((await inputs[id]?.known(path)) === undefined) bytes += size;
    }
  }
  return bytes;
}

/**
 * Checks that the files of a plan's inputs are still those it was made of. Only files that were
 * touched since are read again.
 * @throws WeldlineError `merge.input-changed`
 */
export async function checkUnchanged(
  access: ModelAccess,
  plan: Pick<Plan, 'inputs'>,
  roots: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<void> {
  for (const { id, files } of plan.inputs) {
    for (const { path, sha256 } of files) {
      const place = join(roots[id] ?? '', path);
      if ((await access.digests.digest(place, { signal })) === sha256) continue;
      throw new WeldlineError(
        'merge.input-changed',
        `${place} is not the file that the merge was planned with. Restore it, or run again to ` +
          'plan with the new file.',
      );
    }
  }
}

/** For files outside LFS, which are small. */
async function digestSource(files: ModelFiles, path: string): Promise<string> {
  const source = await files.open(path);
  try {
    return createHash('sha256')
      .update(await source.read(0, source.size))
      .digest('hex');
  } finally {
    await source.close();
  }
}
