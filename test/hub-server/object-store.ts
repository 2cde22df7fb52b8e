import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { access, mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { Refused } from './answers.ts';
import { type CatalogFile, gitBlobId, lfsPointer } from './catalog.ts';

/** What was uploaded: objects of LFS by repository and digest, other files by their git blob id. */
export class ObjectStore {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async lfsFile(repo: string, name: string, sha256: string): Promise<CatalogFile | undefined> {
    const absolutePath = this.#lfsPath(repo, sha256);
    const size = await stat(absolutePath).then(
      (found) => found.size,
      () => undefined,
    );
    if (size === undefined) return undefined;
    const gitOid = gitBlobId(lfsPointer(sha256, size));
    return { path: name, absolutePath, size, gitOid, sha256 };
  }

  async regularFile(name: string, content: Buffer): Promise<CatalogFile> {
    const gitOid = gitBlobId(content);
    const absolutePath = path.join(this.#directory, 'blobs', gitOid);
    await mkdir(path.dirname(absolutePath), { recursive: true });
    await writeFile(absolutePath, content);
    return { path: name, absolutePath, size: content.length, gitOid, sha256: undefined };
  }

  /** Takes an object whole; one that was cut off or is another leaves nothing. */
  async receive(repo: string, sha256: string, body: AsyncIterable<Buffer>): Promise<void> {
    const partial = path.join(this.#directory, `${randomUUID()}.partial`);
    await mkdir(this.#directory, { recursive: true });
    try {
      const hash = createHash('sha256');
      await pipeline(
        body,
        async function* (pieces) {
          for await (const piece of pieces) {
            hash.update(piece);
            yield piece;
          }
        },
        createWriteStream(partial),
      );
      if (hash.digest('hex') !== sha256) throw new Refused(400, 'The content has another digest');
      const target = this.#lfsPath(repo, sha256);
      await mkdir(path.dirname(target), { recursive: true });
      await rename(partial, target);
    } finally {
      await rm(partial, { force: true });
    }
  }

  /** Takes a part of an object. @returns its ETag */
  async receivePart(upload: string, part: number, body: AsyncIterable<Buffer>): Promise<string> {
    const target = this.#partPath(upload, part);
    await mkdir(path.dirname(target), { recursive: true });
    const hash = createHash('md5');
    const partial = `${target}.${randomUUID()}`;
    await pipeline(
      body,
      async function* (pieces) {
        for await (const piece of pieces) {
          hash.update(piece);
          yield piece;
        }
      },
      createWriteStream(partial),
    );
    await rename(partial, target);
    return `"${hash.digest('hex')}"`;
  }

  /** Makes an object of its parts, which must all be there. */
  async complete(repo: string, sha256: string, upload: string, parts: number): Promise<void> {
    const paths = Array.from({ length: parts }, (_, index) => this.#partPath(upload, index + 1));
    for (const part of paths) {
      await access(part).catch(() => {
        throw new Refused(400, 'A part is missing');
      });
    }
    await this.receive(repo, sha256, joined(paths));
    await rm(path.dirname(paths[0]!), { recursive: true });
  }

  #lfsPath(repo: string, sha256: string): string {
    return path.join(this.#directory, 'lfs', encodeURIComponent(repo), sha256);
  }

  #partPath(upload: string, part: number): string {
    return path.join(this.#directory, 'parts', upload, String(part));
  }
}

async function* joined(paths: readonly string[]): AsyncGenerator<Buffer> {
  for (const part of paths) {
    for await (const piece of createReadStream(part)) yield piece as Buffer;
  }
}
