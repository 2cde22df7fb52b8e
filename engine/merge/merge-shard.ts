import { join } from 'node:path';
import type { KernelModule } from '../../kernels/index.ts';
import { toWriteError } from '../disk-errors.ts';
import { digestFile } from '../durable-files.ts';
import { assert, WeldlineError } from '../errors.ts';
import type { Plan, PlannedShard } from '../plan/plan.ts';
import { type Chunk, cutIntoChunks, outputRange } from './chunks.ts';
import { readInputState } from './input-state.ts';
import { type CompletedShard, isCovered, type WrittenRange } from './journal.ts';
import { runMergeThreads } from './merge-threads.ts';
import type { MergeResources } from './resources.ts';
import { type MergeDirectory, partialPath, readCompletion, ShardFile } from './shard-file.ts';

/**
 * After this many bytes what is written is synced and journalled: the disk works while the threads
 * compute, and a crash loses at most this much. Measured: without it the warm case takes twice as
 * long, because all write-back waits for the end.
 */
const SYNC_INTERVAL_BYTES = 64 * 1024 * 1024;

export interface ShardProgress {
  readonly shard: string;
  /** The tensor that was finished last, or is being worked on. */
  readonly tensor: string;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface MergeShardOptions {
  readonly plan: Plan;
  readonly planDigest: string;
  readonly shard: PlannedShard;
  /** Directory of each input, by its id. */
  readonly roots: Readonly<Record<string, string>>;
  readonly directory: MergeDirectory;
  readonly resources: MergeResources;
  readonly kernel: KernelModule;
  readonly onProgress?: ((progress: ShardProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Merges one output shard: goes on where an earlier attempt stopped, after verifying what it left,
 * and gives the file its final name only when it is whole and synced. Idempotent.
 *
 * @returns size and SHA-256 of the shard, of the bytes on disk
 * @throws WeldlineError `merge.*`, `disk.*`; the signal's reason if it is aborted
 */
export async function mergeShard(options: MergeShardOptions): Promise<CompletedShard> {
  const { shard, directory, planDigest, signal } = options;
  try {
    const finished = await findFinished(options);
    if (finished !== undefined) {
      report(options, shard.size);
      return finished;
    }
    const inputs = await readInputState(options.plan, shard, options.roots);
    const file = await ShardFile.open({ shard, directory, planDigest, inputs, signal });
    try {
      await writeChunks(options, file);
      await checkUnchanged(options, inputs);
      return await file.complete(signal);
    } catch (error) {
      await file.close().catch(() => undefined);
      throw error;
    }
  } catch (error) {
    if (signal?.aborted === true) throw error;
    // An attempt that was thought dead may have finished and renamed the shard meanwhile.
    const finished = await findFinished(options).catch(() => undefined);
    if (finished !== undefined) return finished;
    throw toWriteError(error, join(directory.files, shard.file));
  }
}

/** A shard that an earlier attempt finished, if its bytes are still those it recorded. */
async function findFinished(options: MergeShardOptions): Promise<CompletedShard | undefined> {
  const { shard, directory, planDigest, signal } = options;
  const recorded = await readCompletion(shard, directory, planDigest);
  if (recorded === undefined) return undefined;
  try {
    const found = await digestFile(join(directory.files, shard.file), { signal });
    return found.sha256 === recorded.sha256 ? found : undefined;
  } catch (error) {
    if (signal?.aborted === true) throw error;
    return undefined;
  }
}

async function checkUnchanged(options: MergeShardOptions, inputs: string): Promise<void> {
  const { plan, shard, roots } = options;
  if ((await readInputState(plan, shard, roots)) === inputs) return;
  throw new WeldlineError(
    'merge.input-changed',
    `An input of ${shard.file} was written to or replaced while it was merged. Leave the inputs ` +
      'alone and run again; what was made of the changed file is not used.',
  );
}

async function writeChunks(options: MergeShardOptions, file: ShardFile): Promise<void> {
  const { shard, resources, kernel, roots, directory, signal } = options;
  const all = cutIntoChunks(shard, resources.chunkBytesMax);
  const chunks = all.filter((chunk) => !isCovered(file.verified, outputRange(shard, chunk)));
  const queue = new WriteQueue(options, file, chunks);
  const data = {
    module: kernel,
    arena: resources.arena,
    shard,
    chunks,
    roots,
    outputPath: partialPath(directory, shard),
    control: new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT),
  };
  const done = (index: number, crc32: number): void => queue.add(index, crc32);
  try {
    await runMergeThreads(data, resources.threads, done, signal);
  } finally {
    await queue.flush();
  }
  assert(queue.bytesDone === shard.size, `${shard.file} has chunks that no thread reported`);
}

/** Collects finished chunks and makes them durable in batches, one batch at a time. */
class WriteQueue {
  readonly #options: MergeShardOptions;
  readonly #file: ShardFile;
  readonly #chunks: readonly Chunk[];
  #pending: WrittenRange[] = [];
  #pendingBytes = 0;
  #bytesDone: number;
  #recording: Promise<void> = Promise.resolve();

  constructor(options: MergeShardOptions, file: ShardFile, chunks: readonly Chunk[]) {
    this.#options = options;
    this.#file = file;
    this.#chunks = chunks;
    const left = chunks.reduce((sum, chunk) => {
      const { begin, end } = outputRange(options.shard, chunk);
      return sum + end - begin;
    }, 0);
    this.#bytesDone = options.shard.size - left;
    report(options, this.#bytesDone);
  }

  add(index: number, crc32: number): void {
    const chunk = this.#chunks[index] as Chunk;
    const { shard } = this.#options;
    const range = outputRange(shard, chunk);
    const tensor = shard.tensors[chunk.tensor]?.name ?? '';
    this.#pending.push({ tensor, ...range, crc32, inputs: this.#file.inputs });
    this.#pendingBytes += range.end - range.begin;
    this.#bytesDone += range.end - range.begin;
    report(this.#options, this.#bytesDone, tensor);
    if (this.#pendingBytes >= SYNC_INTERVAL_BYTES) this.#startRecording();
  }

  get bytesDone(): number {
    return this.#bytesDone;
  }

  /** Waits until everything that was added is durable. */
  async flush(): Promise<void> {
    this.#startRecording();
    await this.#recording;
  }

  #startRecording(): void {
    const ranges = this.#pending;
    if (ranges.length === 0) return;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#recording = this.#recording.then(() => this.#file.record(ranges));
    // The failure is thrown by `flush`; until then it must not count as unhandled.
    this.#recording.catch(() => undefined);
  }
}

function report(options: MergeShardOptions, bytesDone: number, tensor = ''): void {
  const { shard, onProgress } = options;
  onProgress?.({ shard: shard.file, tensor, bytesDone, bytesTotal: shard.size });
}
