/**
 * The repositories a hub server serves, read from a directory tree:
 *
 *   root/org/name/main/config.json       branch `main` of `org/name`
 *   root/org/name/refs%2Fpr%2F1/…        another revision, its name percent-encoded
 *   root/name/main/…                     a repository without an organization
 *
 * A directory with a `main` in it is a repository. Each revision is one commit, whose id follows
 * from its content, so that the same tree has the same commits on every machine.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';

export interface CatalogFile {
  readonly path: string;
  readonly absolutePath: string;
  readonly size: number;
  /** Id of the blob git holds: of the content, or of the LFS pointer. */
  readonly gitOid: string;
  /** For files in LFS storage. */
  readonly sha256: string | undefined;
}

export interface CatalogCommit {
  readonly sha: string;
  readonly files: ReadonlyMap<string, CatalogFile>;
  readonly title: string;
  readonly parent: CatalogCommit | undefined;
}

export interface CatalogRepository {
  readonly id: string;
  /** Only for accounts of its namespace. */
  readonly isPrivate: boolean;
  /** By branch or tag name. */
  readonly revisions: Map<string, CatalogCommit>;
  /** The names in `revisions` that are tags. */
  readonly tags: Set<string>;
  /** All that there are, by id: refs may leave a commit. */
  readonly commits: Map<string, CatalogCommit>;
}

/** The hub keeps weights and anything large in LFS. */
const LFS_NAMES = /\.(?:safetensors|bin|gguf|model|pt|onnx)$/;
const LFS_BYTES_MIN = 10 * 1024 * 1024;

export function isLfs(name: string, size: number): boolean {
  return LFS_NAMES.test(name) || size >= LFS_BYTES_MIN;
}

export async function readCatalog(root: string): Promise<Map<string, CatalogRepository>> {
  const repositories = new Map<string, CatalogRepository>();
  for (const first of await directoriesIn(root)) {
    const names = await directoriesIn(path.join(root, first));
    const ids = names.includes('main') ? [first] : names.map((name) => `${first}/${name}`);
    for (const id of ids) repositories.set(id, await readRepository(root, id));
  }
  return repositories;
}

export function findCommit(
  repository: CatalogRepository,
  revision: string,
): CatalogCommit | undefined {
  const named = repository.revisions.get(revision);
  if (named !== undefined) return named;
  if (!/^[0-9a-f]{7,40}$/.test(revision)) return undefined;
  return [...repository.commits.values()].find(({ sha }) => sha.startsWith(revision));
}

async function readRepository(root: string, id: string): Promise<CatalogRepository> {
  const directory = path.join(root, id);
  const revisions = new Map<string, CatalogCommit>();
  for (const name of await directoriesIn(directory)) {
    revisions.set(decodeURIComponent(name), await readCommit(path.join(directory, name)));
  }
  const commits = new Map([...revisions.values()].map((commit) => [commit.sha, commit]));
  return { id, isPrivate: false, revisions, tags: new Set(), commits };
}

async function readCommit(directory: string): Promise<CatalogCommit> {
  const files = new Map<string, CatalogFile>();
  const hash = createHash('sha1');
  const entries = await readdir(directory, { recursive: true });
  for (const name of entries.toSorted()) {
    const absolutePath = path.join(directory, name);
    if (!(await stat(absolutePath)).isFile()) continue;
    const file = await describeFile(name.split(path.sep).join('/'), absolutePath);
    files.set(file.path, file);
    hash.update(`${file.path}\0${file.gitOid}\n`);
  }
  return { sha: hash.digest('hex'), files, title: '', parent: undefined };
}

async function describeFile(name: string, absolutePath: string): Promise<CatalogFile> {
  const content = await readFile(absolutePath);
  const size = content.length;
  if (!isLfs(name, size)) {
    return { path: name, absolutePath, size, gitOid: gitBlobId(content), sha256: undefined };
  }
  const sha256 = createHash('sha256').update(content).digest('hex');
  return { path: name, absolutePath, size, gitOid: gitBlobId(lfsPointer(sha256, size)), sha256 };
}

export function lfsPointer(sha256: string, size: number): Buffer {
  return Buffer.from(
    `version https://git-lfs.github.com/spec/v1\noid sha256:${sha256}\nsize ${size}\n`,
  );
}

export function gitBlobId(content: Buffer): string {
  return createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
}

async function directoriesIn(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  return entries
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
    .map((entry) => entry.name);
}
