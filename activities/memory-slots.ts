/** Of the machine's memory the share that models may take together. */
const SHARE = 0.8;

/**
 * Lets work run side by side as long as it fits into memory together. Work that alone is larger
 * than all of it runs alone: what it takes is an estimate, and the system may swap.
 */
export class MemorySlots {
  readonly #totalBytes: number;
  #takenBytes = 0;
  #running = 0;
  readonly #waiting = new Set<() => void>();

  /** @param machineBytes memory of the machine */
  constructor(machineBytes: number) {
    this.#totalBytes = machineBytes * SHARE;
  }

  /** @throws the reason of `signal` where that aborts the wait */
  async run<T>(bytes: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    while (this.#running > 0 && this.#takenBytes + bytes > this.#totalBytes) {
      signal.throwIfAborted();
      await this.#change(signal);
    }
    signal.throwIfAborted();
    this.#takenBytes += bytes;
    this.#running++;
    try {
      return await work();
    } finally {
      this.#takenBytes -= bytes;
      this.#running--;
      for (const wake of [...this.#waiting]) wake();
    }
  }

  /** Until other work has ended, or the wait is given up. */
  async #change(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.#waiting.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
  }
}
