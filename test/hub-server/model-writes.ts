/** What changes a repository: creation, commits, tags, branches. */
import { createHash } from 'node:crypto';
import { Refused } from './answers.ts';
import {
  type CatalogCommit,
  type CatalogFile,
  type CatalogRepository,
  findCommit,
} from './catalog.ts';
import type { ObjectStore } from './object-store.ts';

const GIT_ATTRIBUTES = '*.safetensors filter=lfs diff=lfs merge=lfs -text\n';
/** The rules of git, and the hub's own against what looks like a commit. */
const REF_NAME = /^(?!.*\.\.)(?!.*\.lock$)(?![0-9a-f]{40}$)[A-Za-z0-9][\w./-]*[A-Za-z0-9_-]$/;

interface CommitLine {
  readonly key: string;
  readonly value: {
    readonly summary?: string;
    readonly parentCommit?: string;
    readonly path?: string;
    readonly content?: string;
    readonly encoding?: string;
    readonly oid?: string;
    readonly size?: number;
  };
}

export async function createRepository(
  id: string,
  isPrivate: boolean,
  objects: ObjectStore,
): Promise<CatalogRepository> {
  const attributes = await objects.regularFile('.gitattributes', Buffer.from(GIT_ATTRIBUTES));
  const first = makeCommit('initial commit', new Map([[attributes.path, attributes]]), undefined);
  return {
    id,
    isPrivate,
    tags: new Set(),
    revisions: new Map([['main', first]]),
    commits: new Map([[first.sha, first]]),
  };
}

/** Applies a commit's lines to a branch; the branch moves only if all of them can be. */
export async function applyCommit(
  repository: CatalogRepository,
  branch: string,
  text: string,
  objects: ObjectStore,
): Promise<CatalogCommit> {
  const lines = text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as CommitLine);
  const header = lines.find(({ key }) => key === 'header')?.value ?? {};
  const parent = repository.revisions.get(branch);
  if (parent === undefined || repository.tags.has(branch)) {
    throw new Refused(404, `Invalid rev id: ${branch}`, 'RevisionNotFound');
  }
  const files = new Map(parent.files);
  for (const { key, value } of lines) {
    if (key === 'header') continue;
    const path = value.path!;
    if (key === 'file') files.set(path, await objects.regularFile(path, contentOf(value)));
    else if (key === 'lfsFile') files.set(path, await lfsFile(repository, value, objects));
    else if (key === 'deletedFile') requirePresent(files.delete(path), path);
    else if (key === 'deletedFolder') {
      for (const name of files.keys()) if (name.startsWith(`${path}/`)) files.delete(name);
    } else throw new Refused(400, `Unknown operation ${key}`);
  }
  // Only now, with nothing to wait for between comparing and moving.
  const current = repository.revisions.get(branch)!;
  if (current !== parent || (header.parentCommit ?? parent.sha) !== parent.sha) {
    throw new Refused(412, 'A commit has happened since. Please refresh and try again.');
  }
  const commit = makeCommit(header.summary ?? '', files, parent);
  repository.commits.set(commit.sha, commit);
  repository.revisions.set(branch, commit);
  return commit;
}

function contentOf({ content = '', encoding }: CommitLine['value']): Buffer {
  return Buffer.from(content, encoding === 'base64' ? 'base64' : 'utf8');
}

async function lfsFile(
  repository: CatalogRepository,
  value: CommitLine['value'],
  objects: ObjectStore,
): Promise<CatalogFile> {
  const file = await objects.lfsFile(repository.id, value.path!, value.oid!);
  if (file?.size === value.size && file !== undefined) return file;
  throw new Refused(
    400,
    `Your push was rejected because an LFS pointer (${value.path}) pointed to a file that does not exist`,
  );
}

function requirePresent(present: boolean, path: string): void {
  if (!present) throw new Refused(404, `${path} does not exist`, 'EntryNotFound');
}

function makeCommit(
  title: string,
  files: ReadonlyMap<string, CatalogFile>,
  parent: CatalogCommit | undefined,
): CatalogCommit {
  const hash = createHash('sha1').update(`${parent?.sha}\0${title}\0`);
  for (const { path, gitOid } of files.values()) hash.update(`${path}\0${gitOid}\n`);
  return { sha: hash.digest('hex'), files, title, parent };
}

export function createTag(repository: CatalogRepository, revision: string, tag: string): void {
  const commit = requireCommit(repository, revision);
  checkRefName(tag);
  if (repository.revisions.has(tag)) {
    throw new Refused(409, `Tag reference exists already: refs/tags/${tag}`);
  }
  repository.tags.add(tag);
  repository.revisions.set(tag, commit);
}

export interface BranchRequest {
  readonly startingPoint?: string | undefined;
  readonly emptyBranch?: boolean | undefined;
  readonly overwrite?: boolean | undefined;
}

export function createBranch(
  repository: CatalogRepository,
  name: string,
  asked: BranchRequest,
): void {
  const commit = asked.emptyBranch
    ? makeCommit('initial commit', new Map(), undefined)
    : requireCommit(repository, asked.startingPoint ?? 'main');
  checkRefName(name);
  const taken = repository.revisions.has(name);
  if (taken && (asked.overwrite !== true || repository.tags.has(name))) {
    throw new Refused(409, `Reference already exists: refs/heads/${name}`);
  }
  repository.commits.set(commit.sha, commit);
  repository.revisions.set(name, commit);
}

export function deleteRef(
  repository: CatalogRepository,
  name: string,
  kind: 'tag' | 'branch',
): void {
  const isThere = repository.revisions.has(name) && repository.tags.has(name) === (kind === 'tag');
  if (!isThere) throw new Refused(404, `Invalid rev id: ${name}`, 'RevisionNotFound');
  if (name === 'main') throw new Refused(403, 'Cannot delete the default branch');
  repository.revisions.delete(name);
  repository.tags.delete(name);
}

function requireCommit(repository: CatalogRepository, revision: string): CatalogCommit {
  const commit = findCommit(repository, revision);
  if (commit !== undefined) return commit;
  throw new Refused(404, `Invalid rev id: ${revision}`, 'RevisionNotFound');
}

function checkRefName(name: string): void {
  if (!REF_NAME.test(name)) throw new Refused(400, `Invalid reference name: ${name}`);
}
