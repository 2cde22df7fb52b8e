import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { systemErrorCode, WeldlineError } from '../../engine/errors.ts';
import type { ArtefactFile } from '../publisher.ts';

/** Large enough to keep a disk busy, small enough to show that an upload moves. */
const CHUNK_BYTES = 256 * 1024;

/**
 * A file of an artefact as a blob that stays on the disk, as `@huggingface/hub` takes them. Whoever
 * reads it whole gets the bytes that the artefact names, or an error.
 */
export class FileBlob extends Blob {
  readonly file: ArtefactFile;
  override readonly size: number;
  readonly #start: number;
  readonly #end: number;

  constructor(file: ArtefactFile, start = 0, end = file.size) {
    super([]);
    this.file = file;
    this.size = end - start;
    this.#start = start;
    this.#end = end;
  }

  override slice(start = 0, end = this.size): FileBlob {
    const to = Math.min(this.#start + end, this.#end);
    return new FileBlob(this.file, Math.min(this.#start + start, to), to);
  }

  /** Always a part of a file that was checked, or small and read whole. */
  override async arrayBuffer(): Promise<ArrayBuffer> {
    const isWhole = this.size === this.file.size;
    const content = isWhole ? await readWhole(this.file) : Buffer.concat(await all(this.chunks()));
    return new Uint8Array(content).buffer;
  }

  override async text(): Promise<string> {
    return Buffer.from(await this.arrayBuffer()).toString('utf8');
  }

  override stream(): ReturnType<Blob['stream']> {
    return ReadableStream.from(this.chunks()) as unknown as ReturnType<Blob['stream']>;
  }

  async *chunks(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (this.size === 0) return;
    const range = { start: this.#start, end: this.#end - 1, highWaterMark: CHUNK_BYTES };
    try {
      for await (const chunk of createReadStream(this.file.source, range)) yield chunk;
    } catch (error) {
      throw unreadable(this.file, error);
    }
  }
}

/**
 * Checks that files are here and as long as they should be, before any of them goes out.
 * @throws WeldlineError `disk.read-failed`, `publish.verify-failed`
 */
export async function checkSources(files: readonly ArtefactFile[]): Promise<void> {
  for (const file of files) {
    const { size } = await stat(file.source).catch((error: unknown) => {
      throw unreadable(file, error);
    });
    if (size !== file.size) throw changed(file);
  }
}

/** @throws WeldlineError `disk.read-failed`, `publish.verify-failed` */
export async function readWhole(file: ArtefactFile): Promise<Buffer> {
  const content = await readFile(file.source).catch((error: unknown) => {
    throw unreadable(file, error);
  });
  if (createHash('sha256').update(content).digest('hex') !== file.sha256) throw changed(file);
  return content;
}

/** A file that is no longer what was verified. */
export function changed({ path, source }: ArtefactFile): WeldlineError {
  return new WeldlineError(
    'publish.verify-failed',
    `${path} is not the file that was verified (${source} has changed since). Nothing of it was ` +
      'published; remove the workspace of this merge and release again.',
  );
}

function unreadable({ path, source }: ArtefactFile, error: unknown): WeldlineError {
  if (error instanceof WeldlineError) return error;
  return new WeldlineError(
    'disk.read-failed',
    `${path} cannot be read from ${source} (${systemErrorCode(error) ?? 'unknown error'}), so it ` +
      'cannot be published. Release again: what is missing is made anew.',
    { cause: error },
  );
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}
