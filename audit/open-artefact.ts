import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import type { ModelFiles } from '../engine/model-files.ts';
import { openFileSource } from '../sources/file-source.ts';
import { resolveHubModel } from '../sources/hub-model.ts';
import { hubModelFiles } from '../sources/hub-model-files.ts';
import { noSuchFile } from '../sources/model-directory.ts';
import type { ModelAccess } from '../sources/model-input.ts';
import { formatHubReference, parseModelReference } from '../sources/reference.ts';
import { remoteModelFiles } from '../sources/remote-model-files.ts';
import { resolveOrFollow } from './bucket-alias.ts';

/** What was published, wherever it is. */
export interface OpenedArtefact {
  /** A path or a URI, pinned where it can be. */
  readonly name: string;
  /** Where it is, on this machine. */
  readonly directory?: string;
  /** All its files, whatever they are. */
  readonly files: ModelFiles;
}

/** What git, the hub and its client put beside a model; OpenSSF Model Signing passes over it too. */
const NOT_OF_AN_ARTEFACT = ['.git', '.gitattributes', '.github', '.gitignore', '.cache'];

/** Adapters of an archive lie two folders down, their templates another. */
const DEPTH_MAX = 6;

/** A home directory that is named by mistake has far more. */
const FILES_MAX = 20_000;

/**
 * Opens what is to be looked at: a directory, or files at a URI.
 * @param target a path or a URI, as people write them
 * @throws WeldlineError `source.*`, `hub.*`, `disk.read-failed`
 */
export async function openArtefact(
  access: ModelAccess,
  target: string,
  signal: AbortSignal,
): Promise<OpenedArtefact> {
  const reference = parseModelReference(target, process.cwd());
  if (reference.kind === 'directory') return openDirectory(reference.path);
  if (reference.kind === 'remote') {
    const source = await access.remote(reference.source);
    const model = await resolveOrFollow(source, reference.uri, signal);
    return { name: model.uri, files: remoteModelFiles(source, model) };
  }
  const { repo, revision, folder } = reference;
  const model = await resolveHubModel(access.hub, { repo, revision, signal });
  const prefix = folder === '' ? '' : `${folder}/`;
  const files = model.files.filter(
    ({ path }) => path.startsWith(prefix) && isOfArtefact(path.slice(prefix.length)),
  );
  return {
    name: formatHubReference({ repo, revision: model.commit, folder }),
    files: hubModelFiles(access.hub, { ...model, files }, folder),
  };
}

async function openDirectory(directory: string): Promise<OpenedArtefact> {
  const sizes = new Map<string, number>();
  await collect(directory, '', 0, sizes);
  const files: ModelFiles = {
    name: directory,
    sizes,
    async open(path) {
      if (!sizes.has(path)) throw noSuchFile(directory, path);
      return openFileSource(join(directory, ...path.split('/')));
    },
  };
  return { name: directory, directory, files };
}

/** All files, those too that no loader of models looks at: nothing may hide there. */
async function collect(
  root: string,
  folder: string,
  depth: number,
  sizes: Map<string, number>,
): Promise<void> {
  const names = await readdir(join(root, folder)).catch((error: unknown) => {
    throw unreadable(join(root, folder), error);
  });
  for (const name of names.toSorted()) {
    const path = folder === '' ? name : `${folder}/${name}`;
    if (!isOfArtefact(path)) continue;
    const stats = await stat(join(root, path)).catch(() => undefined);
    if (stats?.isDirectory() && depth < DEPTH_MAX) await collect(root, path, depth + 1, sizes);
    else if (stats === undefined || stats.isFile()) sizes.set(path, stats?.size ?? 0);
    else throw notAFile(join(root, path));
    if (sizes.size > FILES_MAX) {
      throw new WeldlineError(
        'source.invalid-reference',
        `${root} holds more than ${FILES_MAX} files: it is no release.`,
      );
    }
  }
}

function isOfArtefact(path: string): boolean {
  return !NOT_OF_AN_ARTEFACT.includes(path.split('/', 1)[0] ?? '');
}

/** Whoever opens a pipe waits for its other end. */
function notAFile(path: string): WeldlineError {
  return new WeldlineError(
    'source.invalid-reference',
    `${path} is no file, or lies deeper than a release goes. Nothing like it is published: remove it.`,
  );
}

function unreadable(directory: string, error: unknown): WeldlineError {
  const code = systemErrorCode(error);
  const isMissing = code === 'ENOENT' || code === 'ENOTDIR';
  return new WeldlineError(
    isMissing ? 'source.not-found' : 'disk.read-failed',
    isMissing
      ? `There is no directory ${directory}. Name one, or a URI: hf://, s3://, oci://, https://.`
      : `The directory ${directory} cannot be listed (${code ?? String(error)}).`,
    { cause: error },
  );
}
