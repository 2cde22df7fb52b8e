import { type FileHandle, mkdir, open, readdir, rename, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { syncDirectory } from '../durable-files.ts';
import { WeldlineError } from '../errors.ts';
import type { PlannedShard } from '../plan/plan.ts';
import {
  type CompletedShard,
  formatLine,
  type JournalHead,
  type JournalState,
  readJournal,
  type WrittenPrefix,
} from './journal.ts';
import { findResumePoint, type ResumePoint } from './resume-point.ts';

/** Where the output shards of a merge grow. */
export interface MergeDirectory {
  /** Finished shards, and unfinished ones under `<file>.partial`. */
  readonly files: string;
  readonly journals: string;
}

/** Where a shard grows until it is finished. */
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
  readonly path: string;
  /** What an earlier attempt wrote, from inputs in the same state, and that was verified. */
  readonly resumed: ResumePoint;

  private constructor(
    { shard, directory, inputs }: OpenShardOptions,
    data: FileHandle,
    journal: FileHandle,
    resumed: ResumePoint,
  ) {
    this.#shard = shard;
    this.#directory = directory;
    this.inputs = inputs;
    this.#data = data;
    this.#journal = journal;
    this.path = partialPath(directory, shard);
    this.resumed = resumed;
  }

  /** Opens a shard for writing and verifies what an earlier attempt left of it. */
  static async open(options: OpenShardOptions): Promise<ShardFile> {
    const { shard, directory, planDigest, inputs, signal } = options;
    const head: JournalHead = { journal: 2, plan: planDigest, shard: shard.file };
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
      const written = size === shard.size ? (state?.prefixes ?? []) : [];
      const prefixes = written.filter((prefix) => prefix.inputs === inputs);
      const resumed = await findResumePoint(data, shard.size, prefixes, signal);
      const journal = await openJournal(journalPath, head, state);
      return new ShardFile(options, data, journal, resumed);
    } catch (error) {
      await data.close();
      throw error;
    }
  }

  /** @param isOnDisk whether the bytes were written past the page cache */
  async record(prefixes: readonly WrittenPrefix[], isOnDisk: boolean): Promise<void> {
    // For speed, not for safety: what the journal says is compared with the bytes before it counts.
    if (!isOnDisk) await this.#data.datasync();
    await this.#journal.appendFile(prefixes.map(formatLine).join(''));
  }

  /** Closes a whole shard under its final name, durably. */
  async complete(result: CompletedShard): Promise<void> {
    await this.#data.sync();
    await this.#journal.appendFile(formatLine(result));
    await this.#journal.sync();
    const { ino } = await this.#data.stat();
    await this.close();
    await this.#giveFinalName(ino);
  }

  /** Another attempt may have renamed this file before, and a third one begun a new one since. */
  async #giveFinalName(ino: number): Promise<void> {
    const { files } = this.#directory;
    const final = join(files, this.#shard.file);
    if ((await inodeOf(this.path)) === ino) {
      await rename(this.path, final);
      await syncDirectory(files);
    } else if ((await inodeOf(final)) !== ino) {
      throw new WeldlineError(
        'disk.write-failed',
        `${this.path} was replaced while it was written. Resume to go on.`,
      );
    }
  }

  async close(): Promise<void> {
    await this.#data.close();
    await this.#journal.close();
  }
}

/**
 * Makes a finished file of another name a shard, durably.
 * @param path in the shards' directory
 */
export async function completeFrom(
  path: string,
  result: CompletedShard,
  { shard, directory, planDigest }: Omit<OpenShardOptions, 'inputs' | 'signal'>,
): Promise<void> {
  const head: JournalHead = { journal: 2, plan: planDigest, shard: shard.file };
  const journalPath = journalPathOf(directory, shard);
  await mkdir(dirname(journalPath), { recursive: true });
  const journal = await openJournal(journalPath, head, await readJournal(journalPath, head));
  try {
    await journal.appendFile(formatLine(result));
    await journal.sync();
  } finally {
    await journal.close();
  }
  await rename(path, join(directory.files, shard.file));
  await syncDirectory(directory.files);
}

/** Opens a journal to append to it. */
export async function openJournal(
  path: string,
  head: JournalHead,
  state: JournalState | undefined,
): Promise<FileHandle> {
  const journal = await open(path, 'a+');
  try {
    // Nothing is cut off: what came since it was read is of an attempt that overlaps with this one.
    const separator = (await endsWithin(journal)) ? '\n' : '';
    await journal.appendFile(separator + (state === undefined ? formatLine(head) : ''));
    return journal;
  } catch (error) {
    await journal.close();
    throw error;
  }
}

/** Whether a crash cut the last line. */
async function endsWithin(journal: FileHandle): Promise<boolean> {
  const { size } = await journal.stat();
  if (size === 0) return false;
  const { buffer } = await journal.read(Buffer.alloc(1), 0, 1, size - 1);
  return buffer.toString('latin1') !== '\n';
}

export function journalPathOf(directory: MergeDirectory, shard: PlannedShard): string {
  return join(directory.journals, `${shard.file}.jsonl`);
}

/** What the journal says of a finished shard; the caller verifies it against the file. */
export async function readCompletion(
  shard: PlannedShard,
  directory: MergeDirectory,
  planDigest: string,
): Promise<CompletedShard | undefined> {
  const head: JournalHead = { journal: 2, plan: planDigest, shard: shard.file };
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
