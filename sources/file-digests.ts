import { mkdir, readFile, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { toReadError } from '../engine/disk-errors.ts';
import { type DigestOptions, digestFile, writeFileDurably } from '../engine/durable-files.ts';
import { WeldlineError } from '../engine/errors.ts';

/** Digests kept between runs; beyond this the file is started anew. */
const ENTRIES_MAX = 10_000;

/**
 * SHA-256 of local files, computed once and remembered by what tells a changed file: its real
 * path, device, inode, size and time of change.
 */
export class FileDigests {
  readonly #cachePath: string | undefined;
  #known: Map<string, string> | undefined;

  /** @param cachePath where digests are kept between runs; without it, only in memory */
  constructor(cachePath?: string) {
    this.#cachePath = cachePath;
  }

  /**
   * The digest of a file if it need not be read for it.
   * @throws WeldlineError `source.not-found`, `disk.read-failed`
   */
  async known(path: string): Promise<string | undefined> {
    const known = await this.#load();
    return known.get(await keyOf(path));
  }

  /**
   * @returns 64 hexadecimal digits
   * @throws WeldlineError `source.not-found`, `disk.read-failed`
   */
  async digest(path: string, options: DigestOptions = {}): Promise<string> {
    const known = await this.#load();
    const key = await keyOf(path);
    const remembered = known.get(key);
    if (remembered !== undefined) return remembered;
    const { sha256 } = await digestFile(path, options);
    // Only if it stood still meanwhile: a digest of a moving file is worth nothing.
    if ((await keyOf(path)) === key) known.set(key, sha256);
    return sha256;
  }

  /**
   * The first of `files` in `directory` whose bytes are not those of its digest, or that is not
   * there.
   */
  async findChanged(
    directory: string,
    files: readonly { readonly path: string; readonly sha256: string }[],
    signal?: AbortSignal,
  ): Promise<string | undefined> {
    for (const { path, sha256 } of files) {
      const found = await this.digest(join(directory, path), { signal }).catch((error) => {
        signal?.throwIfAborted();
        if (error instanceof WeldlineError && error.code === 'source.not-found') return undefined;
        throw error;
      });
      if (found !== sha256) return path;
    }
    return undefined;
  }

  /**
   * The digest of a file elsewhere, if it was read before.
   * @param version what pins its content: where it is and its ETag, for example
   */
  async knownVersion(version: string): Promise<string | undefined> {
    return (await this.#load()).get(version);
  }

  async rememberVersion(version: string, sha256: string): Promise<void> {
    (await this.#load()).set(version, sha256);
  }

  /** Takes over a digest that is known from elsewhere: of a download that was verified. */
  async remember(path: string, sha256: string): Promise<void> {
    (await this.#load()).set(await keyOf(path), sha256);
  }

  /** Writes what was learnt, so that the next run need not read the files again. Best effort. */
  async save(): Promise<void> {
    if (this.#cachePath === undefined || this.#known === undefined) return;
    const entries = [...this.#known].slice(-ENTRIES_MAX);
    try {
      await mkdir(dirname(this.#cachePath), { recursive: true });
      await writeFileDurably(this.#cachePath, JSON.stringify(Object.fromEntries(entries)));
    } catch {
      // Without the cache the next run is slower, not wrong.
    }
  }

  async #load(): Promise<Map<string, string>> {
    if (this.#known !== undefined) return this.#known;
    this.#known = new Map();
    try {
      const json: unknown = JSON.parse(await readFile(this.#cachePath ?? '', 'utf8'));
      for (const [key, digest] of Object.entries(json ?? {})) {
        if (/^[0-9a-f]{64}$/.test(String(digest))) this.#known.set(key, String(digest));
      }
    } catch {
      // No cache yet, or a damaged one: start anew.
    }
    return this.#known;
  }
}

async function keyOf(path: string): Promise<string> {
  try {
    const real = await realpath(path);
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(real, { bigint: true });
    return [real, dev, ino, size, mtimeNs, ctimeNs].join('|');
  } catch (error) {
    throw toReadError(error, path);
  }
}
