import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Progress } from './progress.ts';

/** Measuring a directory of thousands of files takes time; it gets a small part of it. */
const PAUSE_PER_MEASURE = 10;
const PAUSE_MIN_MS = 500;
/** `[####----] 12/63 torch 2.11.0` of tools/python/environment.py. */
const COUNTED = /^\[[#-]+\] \d+\/\d+ /;
const BYTES_BEFORE_BAR = 1_000_000;

/**
 * Progress of an installation on standard error: a line for each step, and in a terminal a bar below
 * it. npm does not say how far it is, but the size of its folder does; our installer of Python packages
 * counts them.
 */
export class InstallProgress {
  readonly #directory: string;
  readonly #stream: NodeJS.WriteStream;
  readonly #progress: Progress;
  #timer: NodeJS.Timeout | undefined;
  #label = '';
  #bytesTotal = 0;
  #bytesBefore: number | undefined;
  #hasSteps = false;
  #isCounted = false;
  #stopped = false;

  constructor(directory: string, stream: NodeJS.WriteStream = process.stderr) {
    this.#directory = directory;
    this.#stream = stream;
    this.#progress = new Progress(stream);
    if (stream.isTTY) void this.#measure();
  }

  /** @param bytesTotal about what it takes when it is installed */
  begin(label: string, bytesTotal: number): void {
    this.#progress.clear();
    this.#label = label;
    this.#bytesTotal = bytesTotal;
    this.#bytesBefore = undefined;
    this.#hasSteps = false;
    this.#isCounted = false;
  }

  step(line: string): void {
    this.#progress.clear();
    if (this.#stream.isTTY && COUNTED.test(line)) {
      this.#isCounted = true;
      this.#progress.show(line);
      return;
    }
    this.#stream.write(`${line}\n`);
    this.#hasSteps = true;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#progress.clear();
  }

  async #measure(): Promise<void> {
    const startedAt = performance.now();
    const bytes = await directoryBytes(this.#directory);
    if (this.#stopped) return;
    this.#bytesBefore ??= bytes;
    // Where all is there already, there are no steps and no bar.
    if (this.#hasSteps && !this.#isCounted) {
      const bytesDone = Math.min(this.#bytesTotal, Math.max(0, bytes - this.#bytesBefore));
      // From the first bytes nothing can be told of the time that the others take.
      const bytesTotal = bytesDone < BYTES_BEFORE_BAR ? 0 : this.#bytesTotal;
      this.#progress.update({ label: this.#label, item: '', bytesDone, bytesTotal });
    }
    const pause = Math.max(PAUSE_MIN_MS, (performance.now() - startedAt) * PAUSE_PER_MEASURE);
    this.#timer = setTimeout(() => void this.#measure(), pause);
  }
}

/** Files that vanish meanwhile, and a directory that is not there yet, are none. */
async function directoryBytes(directory: string): Promise<number> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  let bytes = 0;
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) bytes += await directoryBytes(path);
    else bytes += (await lstat(path).catch(() => ({ size: 0 }))).size;
  }
  return bytes;
}
