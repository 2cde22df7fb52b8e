import { type FileHandle, mkdir, open, readdir, rename, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { digestHandle, forEachPiece, syncDirectory } from '../durable-files.ts';
import { WeldlineError } from '../errors.ts';
import type { PlannedShard } from '../plan/plan.ts';
import { layoutFile } from '../safetensors/layout.ts';
import type { ByteRange } from './chunks.ts';
import {
  type CompletedShard,
  formatLine,
  type JournalHead,
  type JournalState,
  joinRanges,
  readJournal,
  type WrittenRange,
} from './journal.ts';

/** Where the output shards of a merge grow. */
export interface MergeDirectory {
  /** Finished shards, and unfinished ones under `<file>.partial`. */
  readonly files: string;
  readonly journals: string;
}

export function partialPath(directory: MergeDirectory, shard: PlannedShard): string {
  return join(directory.files, `${shard.file}.partial`);
}

export interface OpenShardOptions {
  readonly shard: PlannedShard;
  readonly directory: MergeDirectory;
  readonly planDigest: string;
  /** See `readInputState`. */
  readonly inputs: string;
  readonly signal: AbortSignal | undefined;
}

/**
 * One output shard on disk with its journal. Attempts may overlap (a worker that was thought dead):
 * both write the same bytes to the same places, nothing is truncated that may hold data, and only a
 * complete file is renamed.
 */
export class ShardFile {
  readonly #shard: PlannedShard;
  readonly #directory: MergeDirectory;
  readonly #data: FileHandle;
  readonly #journal: FileHandle;
  /** The state of the inputs that this attempt reads. */
  readonly inputs: string;
  /** Ranges that an earlier attempt wrote, from inputs in the same state, and that were verified. */
  readonly verified: readonly ByteRange[];

  private constructor(
    { shard, directory, inputs }: OpenShardOptions,
    data: FileHandle,
    journal: FileHandle,
    verified: readonly ByteRange[],
  ) {
    this.#shard = shard;
    this.#directory = directory;
    this.inputs = inputs;
    this.#data = data;
    this.#journal = journal;
    this.verified = verified;
  }

  /** Opens a shard for writing and verifies what an earlier attempt left of it. */
  static async open(options: OpenShardOptions): Promise<ShardFile> {
    const { shard, directory, planDigest, inputs, signal } = options;
    const head: JournalHead = { journal: 1, plan: planDigest, shard: shard.file };
    const journalPath = journalPathOf(directory, shard);
    await mkdir(directory.files, { recursive: true });
    await mkdir(dirname(journalPath), { recursive: true });
    const state = await readJournal(journalPath, head);
    const path = partialPath(directory, shard);
    const size = await sizeOf(path);
    const data = await open(path, size === undefined ? 'wx+' : 'r+').catch(async (error) => {
      // Another attempt created it between the two calls: share it.
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return open(path, 'r+');
      throw error;
    });
    try {
      if (size !== shard.size) await data.truncate(shard.size);
      const written = size === shard.size ? (state?.ranges ?? []) : [];
      const ranges = written.filter((range) => range.inputs === inputs);
      const verified = await verifyRanges(data, ranges, signal);
      const { header } = layoutFile(shard.tensors);
      await data.write(header, 0, header.length, 0);
      const journal = await openJournal(journalPath, head, state);
      return new ShardFile(options, data, journal, verified);
    } catch (error) {
      await data.close();
      throw error;
    }
  }

  /** Makes ranges durable: first their bytes, then the lines that speak of them. */
  async record(ranges: readonly WrittenRange[]): Promise<void> {
    await this.#data.datasync();
    await this.#journal.appendFile(ranges.map(formatLine).join(''));
  }

  /** Closes a whole shard under its final name. @returns size and SHA-256 of its bytes on disk */
  async complete(signal: AbortSignal | undefined): Promise<CompletedShard> {
    await this.#data.sync();
    const result = await digestHandle(this.#data, { signal });
    await this.#journal.appendFile(formatLine(result));
    await this.#journal.sync();
    const { ino } = await this.#data.stat();
    await this.close();
    await this.#giveFinalName(ino);
    return result;
  }

  /** Another attempt may have renamed this file before, and a third one begun a new one since. */
  async #giveFinalName(ino: number): Promise<void> {
    const { files } = this.#directory;
    const partial = partialPath(this.#directory, this.#shard);
    const final = join(files, this.#shard.file);
    if ((await inodeOf(partial)) === ino) {
      await rename(partial, final);
      await syncDirectory(files);
    } else if ((await inodeOf(final)) !== ino) {
      throw new WeldlineError(
        'disk.write-failed',
        `${partial} was replaced while it was written. Resume to go on.`,
      );
    }
  }

  async close(): Promise<void> {
    await this.#data.close();
    await this.#journal.close();
  }
}

async function openJournal(
  path: string,
  head: JournalHead,
  state: JournalState | undefined,
): Promise<FileHandle> {
  const journal = await open(path, 'a');
  try {
    await journal.truncate(state?.soundBytes ?? 0);
    if (state === undefined) await journal.appendFile(formatLine(head));
    return journal;
  } catch (error) {
    await journal.close();
    throw error;
  }
}

function journalPathOf(directory: MergeDirectory, shard: PlannedShard): string {
  return join(directory.journals, `${shard.file}.jsonl`);
}

/** What the journal says of a finished shard; the caller verifies it against the file. */
export async function readCompletion(
  shard: PlannedShard,
  directory: MergeDirectory,
  planDigest: string,
): Promise<CompletedShard | undefined> {
  const head: JournalHead = { journal: 1, plan: planDigest, shard: shard.file };
  return (await readJournal(journalPathOf(directory, shard), head))?.complete;
}

async function inodeOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.ino;
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch {
    return undefined;
  }
}

/** The ranges whose bytes on disk are those the journal speaks of, joined. */
async function verifyRanges(
  data: FileHandle,
  ranges: readonly WrittenRange[],
  signal: AbortSignal | undefined,
): Promise<ByteRange[]> {
  const sound: ByteRange[] = [];
  for (const range of ranges) {
    let checksum = 0;
    let bytesLeft = range.end - range.begin;
    const add = (piece: Uint8Array): void => {
      checksum = crc32(piece, checksum);
      bytesLeft -= piece.length;
    };
    await forEachPiece(data, range, add, signal);
    if (bytesLeft === 0 && checksum === range.crc32) sound.push(range);
  }
  return joinRanges(sound);
}

/** Bytes that the files of an earlier attempt take on disk; partial files have holes. */
export async function bytesOnDisk(directory: MergeDirectory): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(directory.files).catch(() => [])) {
    const stats = await stat(join(directory.files, name)).catch(() => undefined);
    // The unit of `blocks` is 512 bytes on every file system.
    bytes += (stats?.blocks ?? 0) * 512;
  }
  return bytes;
}
