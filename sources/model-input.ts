/** Models, wherever they are: named, pinned, brought here. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ADAPTER_CONFIG_FILE } from '../engine/adapters/adapter-config.ts';
import { ADAPTER_PICKLE_FILE } from '../engine/adapters/adapter-format.ts';
import { digestOf } from '../engine/canonical-json.ts';
import { isStreamedFile } from '../engine/merge/streamed-input.ts';
import type { ModelFiles } from '../engine/model-files.ts';
import { isSideFile } from '../engine/plan/side-files.ts';
import { INDEX_FILE } from '../engine/safetensors/weight-index.ts';
import type { FetchProgress } from './fetch-blobs.ts';
import { fetchModel } from './fetch-model.ts';
import { fetchRemote, remoteBytesAbsent } from './fetch-remote.ts';
import type { FileDigests } from './file-digests.ts';
import { snapshotDirectory } from './hub-cache.ts';
import type { HubConnection } from './hub-connection.ts';
import { type HubFile, resolveHubModel } from './hub-model.ts';
import { hubModelFiles } from './hub-model-files.ts';
import { openModelDirectory } from './model-directory.ts';
import { type HubReference, parseModelReference } from './reference.ts';
import { remoteModelFiles } from './remote-model-files.ts';
import type { RemoteReference } from './remote-reference.ts';
import type { RemoteModel, RemoteSource } from './remote-source.ts';
import { selectAdapterFiles, selectBaseFiles } from './select-files.ts';

export type ModelRole = 'base' | 'adapter';

/** Where a model is: a directory, files of a hub commit, or files of another place as they are now. */
export type LocatedModel =
  | { readonly kind: 'directory'; readonly path: string }
  | LocatedOnHub
  | LocatedRemotely;

interface LocatedOnHub {
  readonly kind: 'hub';
  readonly repo: string;
  readonly revision: string;
  readonly commit: string;
  readonly folder: string;
  /** The files that are needed of it. */
  readonly files: readonly HubFile[];
}

interface LocatedRemotely {
  readonly kind: 'remote';
  /** With the files that are needed of it. */
  readonly model: RemoteModel;
}

/** A model pinned to what it is now: a hub commit, a pin, or the digest of a directory's files. */
export type ResolvedModel =
  | { readonly kind: 'directory'; readonly path: string; readonly digest: string }
  | LocatedOnHub
  | LocatedRemotely;

/** What it takes to reach models. */
export interface ModelAccess {
  readonly hub: HubConnection;
  /** The cache that Hugging Face tools share. */
  readonly cacheDirectory: string;
  /** Where models from other places than a hub are kept. */
  readonly modelsDirectory: string;
  readonly digests: FileDigests;
  /** Code of a kind of place is loaded when it is used. */
  readonly remote: (kind: RemoteModel['kind']) => Promise<RemoteSource>;
}

export interface LocateModelOptions {
  /** An absolute path, or a URI: see reference.ts. */
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
 * Finds a model. Of a directory nothing is read; of a hub, the commit and its listing; of another
 * place, its listing.
 * @throws WeldlineError `source.*`, `hub.*`, `checkpoint.*`, `adapter.*`
 */
export async function locateModel(
  access: ModelAccess,
  options: LocateModelOptions,
): Promise<LocatedModel> {
  const reference = parseModelReference(options.model, process.cwd());
  if (reference.kind === 'directory') return { kind: 'directory', path: reference.path };
  if (reference.kind === 'remote') return locateRemotely(access, reference, options);
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
  if (located.kind !== 'directory') return located;
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

async function locateRemotely(
  access: ModelAccess,
  { source, uri }: RemoteReference,
  { role, signal }: LocateModelOptions,
): Promise<LocatedRemotely> {
  const model = await (await access.remote(source)).resolve(uri, signal);
  const select = role === 'base' ? selectBaseFiles : selectAdapterFiles;
  return { kind: 'remote', model: { ...model, files: select(model.files, { name: uri }) } };
}

/**
 * The hub commit, with the folder where a repository holds several models (`checkpoint-500`), the pin
 * of another place, or the digest of the directory: what tells two models, and two states of one,
 * apart.
 */
export function identityOf(model: ResolvedModel): string {
  if (model.kind === 'directory') return model.digest;
  if (model.kind === 'remote') return model.model.pin;
  return model.folder === '' ? model.commit : `${model.commit}/${model.folder}`;
}

/** A model less its weights: what is fetched of one whose weights are read where they are. */
export function withoutWeights(model: LocatedModel): LocatedModel {
  const less = <File extends { readonly path: string }>(files: readonly File[]): File[] =>
    files.filter(({ path }) => !isStreamedFile(path));
  if (model.kind === 'directory') return model;
  if (model.kind === 'hub') return { ...model, files: less(model.files) };
  return { ...model, model: { ...model.model, files: less(model.model.files) } };
}

/** Bytes that are not in the cache yet. */
export async function downloadBytes(access: ModelAccess, model: LocatedModel): Promise<number> {
  if (model.kind === 'directory') return 0;
  if (model.kind === 'remote') return remoteBytesAbsent(model.model, access.modelsDirectory);
  const snapshot = snapshotDirectory(access.cacheDirectory, model.repo, model.commit);
  let bytes = 0;
  for (const file of model.files) {
    const cached = await stat(join(snapshot, file.path)).catch(() => undefined);
    if (cached?.size !== file.size) bytes += file.size;
  }
  return bytes;
}

/** The directory below which a model is kept once it was fetched. */
export function fetchedInto(access: ModelAccess, model: LocatedModel): string {
  return model.kind === 'remote' ? access.modelsDirectory : access.cacheDirectory;
}

/** The files of a model where they are now, for headers and configurations. */
export async function openRemotely(access: ModelAccess, model: LocatedModel): Promise<ModelFiles> {
  if (model.kind === 'directory') return openModelDirectory(model.path);
  if (model.kind === 'remote') {
    return remoteModelFiles(await access.remote(model.model.kind), model.model);
  }
  return hubModelFiles(access.hub, model, model.folder);
}

/**
 * Brings a model to this machine.
 * @returns the directory that holds its files
 * @throws WeldlineError `hub.*`, `source.*`, `disk.*`
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
  if (model.kind === 'remote') {
    const { model: remote } = model;
    const source = await access.remote(remote.kind);
    return (await fetchRemote(source, remote, access.modelsDirectory, options)).directory;
  }
  const { cacheDirectory } = access;
  const fetched = await fetchModel(access.hub, {
    model,
    files: model.files,
    cacheDirectory,
    ...options,
  });
  return join(fetched.directory, model.folder);
}
