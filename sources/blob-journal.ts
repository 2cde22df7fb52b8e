/**
 * Which byte ranges of a partial blob are on disk: a line `offset length` for each, appended after
 * the bytes were synced. A line without its line break was torn by a crash and does not count.
 */
import { type FileHandle, open, readFile, rename, writeFile } from 'node:fs/promises';
import type { ByteRange } from './byte-range.ts';
import { joinRanges } from './join-ranges.ts';

const FORMAT = 'weldline-download 1';

/** 16 MiB ranges of a terabyte would be 65,536 lines of some 25 bytes. */
const JOURNAL_BYTES_MAX = 16 * 1024 * 1024;

export class BlobJournal {
  readonly #handle: FileHandle;
  readonly #size: number;
  readonly #done: readonly ByteRange[];

  private constructor(handle: FileHandle, size: number, done: readonly ByteRange[]) {
    this.#handle = handle;
    this.#size = size;
    this.#done = done;
  }

  /**
   * Opens or starts the journal of a blob of `size` bytes.
   * @param partialBytes size of the partial now; ranges beyond it are not believed
   */
  static async open(path: string, size: number, partialBytes: number): Promise<BlobJournal> {
    const text = await readFile(path, 'utf8').catch(() => '');
    const done = text.length > JOURNAL_BYTES_MAX ? [] : parseJournal(text, size, partialBytes);
    // Written anew, so that a torn line cannot run into the next one.
    const lines = done.map(({ offset, length }) => `${offset} ${length}\n`);
    await writeFile(`${path}.new`, `${FORMAT} ${size}\n${lines.join('')}`);
    await rename(`${path}.new`, path);
    return new BlobJournal(await open(path, 'a'), size, done);
  }

  /** What was missing when the journal was opened, in ascending order. */
  missing(): ByteRange[] {
    const missing: ByteRange[] = [];
    let position = 0;
    for (const { offset, length } of [...this.#done, { offset: this.#size, length: 0 }]) {
      if (offset > position) missing.push({ offset: position, length: offset - position });
      position = offset + length;
    }
    return missing;
  }

  /** Only after the bytes of the range were synced. */
  async record(range: ByteRange): Promise<void> {
    await this.#handle.appendFile(`${range.offset} ${range.length}\n`);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** The ranges a journal vouches for: ascending, merged; none if it is of another blob or format. */
export function parseJournal(text: string, size: number, partialBytes: number): ByteRange[] {
  const [header, ...lines] = text.split('\n').slice(0, -1);
  if (header !== `${FORMAT} ${size}`) return [];
  const ranges: ByteRange[] = [];
  for (const line of lines) {
    const match = /^(\d{1,15}) (\d{1,15})$/.exec(line);
    if (match === null) return [];
    const range = { offset: Number(match[1]), length: Number(match[2]) };
    if (range.offset + range.length > Math.min(size, partialBytes)) return [];
    ranges.push(range);
  }
  return mergeRanges(ranges);
}

export function mergeRanges(ranges: readonly ByteRange[]): ByteRange[] {
  const spans = ranges
    .filter(({ length }) => length > 0)
    .map(({ offset, length }) => ({ begin: offset, end: offset + length }));
  return joinRanges(spans).map(({ begin, end }) => ({ offset: begin, length: end - begin }));
}

/** Cuts ranges into pieces of at most `bytesMax`. */
export function splitRanges(ranges: readonly ByteRange[], bytesMax: number): ByteRange[] {
  return ranges.flatMap(({ offset, length }) =>
    Array.from({ length: Math.ceil(length / bytesMax) }, (_, index) => ({
      offset: offset + index * bytesMax,
      length: Math.min(bytesMax, length - index * bytesMax),
    })),
  );
}
