import { createHash } from 'node:crypto';
import { WeldlineError } from '../../engine/errors.ts';
import type { ArtefactFile } from '../publisher.ts';
import { readWhole } from './file-blob.ts';
import { notHub } from './hub-answers.ts';

/** A file of a commit. */
export interface TreeEntry {
  readonly path: string;
  /** Bytes of the content. */
  readonly size: number;
  /** SHA-256 of the content, for files in LFS or Xet storage; hex. */
  readonly sha256?: string;
  /** Git's id of the blob, for all others: SHA-1 over a header and the content; hex. */
  readonly gitId?: string;
}

/** What git holds itself is small on a hub: 10 MB at most. */
const GIT_BYTES_MAX = 64 * 1024 * 1024;

export function parseTree(page: unknown, name: string): TreeEntry[] {
  if (!Array.isArray(page)) throw notHub(name, 'answers with something that is not a listing');
  return page.filter((entry) => entry?.type === 'file').map((entry) => parseEntry(entry, name));
}

function parseEntry(entry: Record<string, unknown>, name: string): TreeEntry {
  const { path, oid } = entry;
  const lfs = entry['lfs'] as { oid?: unknown; size?: unknown } | null | undefined;
  const size = lfs?.size ?? entry['size'];
  if (typeof path !== 'string' || typeof size !== 'number') {
    throw notHub(name, 'lists a file without a path or a size');
  }
  return lfs ? { path, size, sha256: String(lfs.oid) } : { path, size, gitId: String(oid) };
}

/** Compares the files of an artefact with those of commits; what is read for it is read once. */
export class ArtefactTree {
  readonly files: readonly ArtefactFile[];
  readonly #gitIds = new Map<string, string | undefined>();

  constructor(files: readonly ArtefactFile[]) {
    this.files = files;
  }

  /** Files that a commit lacks, or has with other bytes. */
  async missingFrom(tree: ReadonlyMap<string, TreeEntry>): Promise<ArtefactFile[]> {
    const missing: ArtefactFile[] = [];
    for (const file of this.files) {
      const entry = tree.get(file.path);
      if (entry === undefined || !(await this.#isSame(entry, file))) missing.push(file);
    }
    return missing;
  }

  async #isSame(entry: TreeEntry, file: ArtefactFile): Promise<boolean> {
    if (entry.size !== file.size) return false;
    if (entry.sha256 !== undefined) return entry.sha256 === file.sha256;
    if (!this.#gitIds.has(file.path)) this.#gitIds.set(file.path, await gitIdOf(file));
    return entry.gitId === this.#gitIds.get(file.path);
  }
}

/** Undefined where the file is not here (any more), or too large for git to hold. */
async function gitIdOf(file: ArtefactFile): Promise<string | undefined> {
  if (file.size > GIT_BYTES_MAX) return undefined;
  try {
    const content = await readWhole(file);
    return createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
  } catch (error) {
    if (error instanceof WeldlineError && error.code === 'disk.read-failed') return undefined;
    throw error;
  }
}
