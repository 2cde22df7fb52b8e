/**
 * What a recipe may write as a model:
 *
 * - a path, absolute or relative to the recipe: `./adapters/support`, `/models/llama`
 * - `file:///models/llama`
 * - `hf://org/name`, `hf://name` for the few old models without an organization
 * - `hf://org/name@revision`: a branch, tag or commit; a slash in a branch is written `%2F`, except
 *   in `refs/pr/7` and `refs/convert/name`, which may be written as they are
 * - `hf://org/name@revision/folder/inside`: a model in a folder of a repository, as trainers push
 *   their checkpoints; only with an organization, because `hf://name/folder` reads as one
 * - `s3://bucket/prefix`, `oci://registry/repository:tag`, `oci://registry/repository@sha256:…`,
 *   `https://host/path`, and `http://` for hosts of a private network: see remote-reference.ts
 */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { WeldlineError } from '../engine/errors.ts';
import { checkHubPath } from './hub-path.ts';
import { parseRemoteReference, type RemoteReference, remoteKind } from './remote-reference.ts';

export type ModelReference = DirectoryReference | HubReference | RemoteReference;

export interface DirectoryReference {
  readonly kind: 'directory';
  /** Absolute. */
  readonly path: string;
}

export interface HubReference {
  readonly kind: 'hub';
  /** `org/name` or `name`. */
  readonly repo: string;
  /** As written, decoded; `main` if none was. */
  readonly revision: string;
  /** Folder inside the repository, without slashes at the ends; empty for the root. */
  readonly folder: string;
}

/** The hub's own limit for `org/name`. */
const REPO_CHARACTERS_MAX = 96;

/** Longer than any name git servers take. */
const REVISION_CHARACTERS_MAX = 255;

const SPECIAL_REVISION = /^refs\/(?:pr|convert)\/[^/]+/;

/**
 * @param text as the user wrote it
 * @param baseDirectory what relative paths are relative to, absolute
 * @throws WeldlineError `source.unsupported-scheme`, `source.invalid-reference`
 */
export function parseModelReference(text: string, baseDirectory: string): ModelReference {
  if (text.trim() === '' || text.includes('\0')) throw invalid(text, 'it is empty or holds a NUL');
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]+):\/\//.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) return { kind: 'directory', path: path.resolve(baseDirectory, text) };
  if (scheme === 'file') return { kind: 'directory', path: filePath(text) };
  if (scheme === 'hf') return parseHubReference(text);
  const kind = remoteKind(scheme);
  if (kind !== undefined) return parseRemoteReference(kind, text);
  throw new WeldlineError(
    'source.unsupported-scheme',
    `Models cannot be read from ${scheme}://. Write a path, file:///path, ` +
      'hf://org/name[@revision][/folder], s3://bucket/prefix, oci://registry/repository:tag or ' +
      'https://host/path.',
  );
}

/** The reference as text again, for messages and reports: pinned if `revision` is a commit. */
export function formatHubReference(reference: Omit<HubReference, 'kind'>): string {
  const revision = SPECIAL_REVISION.test(reference.revision)
    ? reference.revision
    : encodeURIComponent(reference.revision);
  const folder = reference.folder === '' ? '' : `/${reference.folder}`;
  return `hf://${reference.repo}@${revision}${folder}`;
}

function parseHubReference(text: string): HubReference {
  const rest = text.slice('hf://'.length);
  const at = rest.indexOf('@');
  const names = (at < 0 ? rest : rest.slice(0, at)).split('/');
  if (at >= 0 && names.length > 2) {
    throw invalid(text, 'the revision goes right after the name: hf://org/name@revision/folder');
  }
  const repo = names.slice(0, 2).join('/');
  checkRepo(repo, text);
  if (at < 0)
    return { kind: 'hub', repo, revision: 'main', folder: folderOf(names.slice(2), text) };

  const { revision, folder } = splitRevision(rest.slice(at + 1));
  if (folder.length > 0 && names.length === 1) {
    throw invalid(text, 'a folder needs the organization: hf://org/name@revision/folder');
  }
  return {
    kind: 'hub',
    repo,
    revision: checkRevision(revision, text),
    folder: folderOf(folder, text),
  };
}

function splitRevision(text: string): { revision: string; folder: string[] } {
  const special = SPECIAL_REVISION.exec(text)?.[0];
  const revision = special ?? text.split('/', 1)[0]!;
  const rest = text.slice(revision.length + 1);
  return { revision, folder: rest === '' ? [] : rest.split('/') };
}

function checkRepo(repo: string, text: string): void {
  const wellFormed = repo
    .split('/')
    .every((part) => /^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$/.test(part));
  // `--` stands for the slash in the cache's folder names, `..` is a step up, `.git` the hub forbids.
  if (!wellFormed || /--|\.\./.test(repo) || repo.endsWith('.git')) {
    throw invalid(
      text,
      'a name is made of letters, digits, "-", "_" and "." and is written hf://org/name',
    );
  }
  if (repo.length > REPO_CHARACTERS_MAX) {
    throw invalid(text, `a name has at most ${REPO_CHARACTERS_MAX} characters`);
  }
}

/** The rules of git for names of branches and tags, as far as they keep a path safe. */
function checkRevision(encoded: string, text: string): string {
  let revision: string;
  try {
    revision = decodeURIComponent(encoded);
  } catch {
    throw invalid(text, 'the revision has a "%" that starts no percent-encoding');
  }
  const parts = revision.split('/');
  const safe = parts.every((part) => part !== '' && !part.startsWith('.') && !part.includes('..'));
  const plain = /^[^\p{Cc} ~^:?*[\\@]+$/u.test(revision);
  if (!safe || !plain || revision.length > REVISION_CHARACTERS_MAX) {
    throw invalid(text, 'after "@" goes a branch, a tag or a commit');
  }
  return revision;
}

function folderOf(parts: readonly string[], text: string): string {
  const folder = parts.join('/').replace(/\/$/, '');
  if (folder === '') return '';
  try {
    checkHubPath(folder);
  } catch {
    throw invalid(text, 'the folder must be a plain path inside the repository');
  }
  return folder;
}

function filePath(text: string): string {
  try {
    return fileURLToPath(text);
  } catch {
    throw invalid(text, 'a file URL has three slashes and no host: file:///models/llama');
  }
}

function invalid(text: string, why: string): WeldlineError {
  return new WeldlineError(
    'source.invalid-reference',
    `${JSON.stringify(text)} does not name a model: ${why}.`,
  );
}
