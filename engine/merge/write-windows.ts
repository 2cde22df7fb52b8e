import { createHash } from 'node:crypto';
import { assert } from '../errors.ts';
import type { CompletedShard } from './journal.ts';
import { makeWindows } from './make-windows.ts';
import { createControl, letGo } from './merge-control.ts';
import type { WindowMessage } from './merge-worker.ts';
import type { ShardFile } from './shard-file.ts';
import { type MergeShardOptions, reportProgress } from './shard-options.ts';
import { firstEndingAfter, type WindowCut, windowAt, windowCount } from './windows.ts';

/**
 * After this many bytes a line goes into the journal: a crash loses at most this much and what the
 * threads have at hand. Where writes go through the page cache they are synced first, so that the
 * disk works while the threads compute; otherwise all write-back would wait for the end.
 */
const RECORD_INTERVAL_BYTES = 64 * 1024 * 1024;

/**
 * Makes and writes what is missing of a shard.
 *
 * @param isHashed false only to measure what hashing costs; the shard then has no digest and no
 *   journal
 * @returns size and SHA-256 of the shard's bytes, hashed as they were made
 */
export async function writeWindows(
  options: MergeShardOptions,
  file: ShardFile,
  isHashed = true,
): Promise<CompletedShard> {
  const { shard, resources } = options;
  const { begin } = file.resumed;
  const windows = { begin, windowBytes: resources.windowBytes, size: shard.size };
  const control = createControl();
  const log = new WindowLog(options, file, windows, (count) =>
    letGo(new Int32Array(control), count),
  );
  const onWindow = (message: WindowMessage): void => log.add(message);
  try {
    await makeWindows(options, { windows, control, outputPath: file.path, isHashed, onWindow });
  } finally {
    await log.flush();
  }
  const { size } = shard;
  if (!isHashed) return { size, sha256: createHash('sha256').digest('hex') };
  return { size, sha256: log.finish() };
}

/** Hashes windows in file order as they are made, and journals what of the file is written. */
class WindowLog {
  readonly #options: MergeShardOptions;
  readonly #file: ShardFile;
  readonly #windows: WindowCut;
  readonly #onHashed: (count: number) => void;
  readonly #made = new Map<number, Uint8Array>();
  readonly #written = new Set<number>();
  /** How many windows from the first one on were hashed, and were written. */
  #hashedCount = 0;
  #writtenCount = 0;
  #recordedBytes: number;
  /** Hashed up to its end, but not yet known to be written. */
  #due: { windows: number; end: number; sha256: string }[] = [];
  #isDirect = true;
  #recording: Promise<void> = Promise.resolve();

  constructor(
    options: MergeShardOptions,
    file: ShardFile,
    windows: WindowCut,
    onHashed: (count: number) => void,
  ) {
    this.#options = options;
    this.#file = file;
    this.#windows = windows;
    this.#onHashed = onHashed;
    this.#recordedBytes = windows.begin;
    reportProgress(options, windows.begin);
  }

  add(message: WindowMessage): void {
    if (message.kind === 'made') {
      this.#made.set(message.index, message.bytes);
      this.#hashMade();
    } else {
      this.#written.add(message.index);
      this.#isDirect &&= message.isDirect;
      this.#countWritten();
    }
    this.#recordDue();
  }

  /** @returns the SHA-256 of the whole shard */
  finish(): string {
    const count = windowCount(this.#windows);
    assert(this.#hashedCount === count && this.#writtenCount === count, 'a window is missing');
    return this.#file.resumed.hash.digest('hex');
  }

  /** Journals what was done up to now. */
  async flush(): Promise<void> {
    // Not so where a write failed: the digest then covers bytes that are not in the file.
    if (this.#hashedCount > 0 && this.#writtenCount >= this.#hashedCount) this.#markDue();
    this.#recordDue();
    await this.#recording;
  }

  #hashMade(): void {
    for (;;) {
      const bytes = this.#made.get(this.#hashedCount);
      if (bytes === undefined) return;
      this.#file.resumed.hash.update(bytes);
      this.#made.delete(this.#hashedCount);
      this.#hashedCount += 1;
      this.#onHashed(this.#hashedCount);
      if (this.#endOf(this.#hashedCount) - this.#recordedBytes >= RECORD_INTERVAL_BYTES) {
        this.#markDue();
      }
    }
  }

  #countWritten(): void {
    while (this.#written.delete(this.#writtenCount)) this.#writtenCount += 1;
    const done = this.#endOf(this.#writtenCount);
    const { shard } = this.#options;
    const at = shard.tensors[firstEndingAfter(shard, done - 1)];
    reportProgress(this.#options, done, at?.name);
  }

  #markDue(): void {
    const end = this.#endOf(this.#hashedCount);
    if (end === this.#recordedBytes) return;
    const sha256 = this.#file.resumed.hash.copy().digest('hex');
    this.#due.push({ windows: this.#hashedCount, end, sha256 });
    this.#recordedBytes = end;
  }

  #recordDue(): void {
    const lines = this.#due.filter(({ windows }) => windows <= this.#writtenCount);
    if (lines.length === 0) return;
    this.#due = this.#due.slice(lines.length);
    const { inputs } = this.#file;
    const prefixes = lines.map(({ end, sha256 }) => ({ end, sha256, inputs }));
    const isDirect = this.#isDirect;
    this.#recording = this.#recording.then(() => this.#file.record(prefixes, isDirect));
    // The failure is thrown by `flush`; until then it must not count as unhandled.
    this.#recording.catch(() => undefined);
  }

  /** Where the first `count` windows end. */
  #endOf(count: number): number {
    return count === 0 ? this.#windows.begin : windowAt(this.#windows, count - 1).end;
  }
}
