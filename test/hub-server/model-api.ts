import type { CatalogCommit, CatalogFile, CatalogRepository } from './catalog.ts';

/** Body of `/api/models/{repo}/revision/{revision}`; `blobs=true` adds sizes and digests. */
export function modelInformation(
  repository: CatalogRepository,
  commit: CatalogCommit,
  withBlobs: boolean,
): object {
  return {
    _id: '0'.repeat(24),
    id: repository.id,
    modelId: repository.id,
    sha: commit.sha,
    private: repository.isPrivate,
    gated: false,
    disabled: false,
    tags: [],
    downloads: 0,
    likes: 0,
    siblings: [...commit.files.values()].map((file) =>
      withBlobs ? sibling(file) : { rfilename: file.path },
    ),
  };
}

function sibling(file: CatalogFile): object {
  const lfs = file.sha256 && { sha256: file.sha256, size: file.size, pointerSize: 134 };
  return {
    rfilename: file.path,
    size: file.size,
    blobId: file.gitOid,
    ...(lfs ? { lfs } : {}),
  };
}

/** Body of `/api/models/{repo}/tree/{revision}?recursive=true`: folders, then files. */
export function treeEntries(commit: CatalogCommit): object[] {
  const paths = [...commit.files.keys()];
  const folders = new Set(
    paths.flatMap((path) => {
      const steps = path.split('/').slice(0, -1);
      return steps.map((_, index) => steps.slice(0, index + 1).join('/'));
    }),
  );
  return [
    ...[...folders].map((path) => ({ type: 'directory', oid: '0'.repeat(40), size: 0, path })),
    ...[...commit.files.values()].map(treeEntry),
  ];
}

/** Body of `/api/models/{repo}/paths-info/{revision}`: what of the paths there is. */
export function pathsInfo(commit: CatalogCommit, paths: readonly string[]): object[] {
  return paths.flatMap((path) => {
    const file = commit.files.get(path);
    return file === undefined ? [] : [treeEntry(file)];
  });
}

function treeEntry(file: CatalogFile): object {
  const lfs = file.sha256 && { oid: file.sha256, size: file.size, pointerSize: 134 };
  return {
    type: 'file',
    oid: file.gitOid,
    size: file.size,
    path: file.path,
    ...(lfs ? { lfs } : {}),
  };
}
