/** Enough that neither side waits for the other at every reply. */
const REPLIES_MAX = 16;

export type Reply = Record<string, unknown>;

/**
 * The replies to one request on their way from the reader of a stream to whoever asked. It is
 * bounded: a reader that is ahead waits, and so in the end does the program.
 */
export class ReplyQueue {
  readonly #replies: Reply[] = [];
  #isLeft = false;
  #isEnded = false;
  #error: unknown;
  #wake: () => void = () => {};
  #changed: Promise<void> = Promise.resolve();

  constructor() {
    this.#change();
  }

  /** Resolves when there is room for another. */
  async put(reply: Reply): Promise<void> {
    if (!this.#isLeft) this.#replies.push(reply);
    this.#change();
    while (this.#replies.length >= REPLIES_MAX && !this.#isEnded) await this.#changed;
  }

  /** No more will come: all have come, or there is an error. */
  end(error?: unknown): void {
    this.#isEnded = true;
    this.#error ??= error;
    this.#change();
  }

  /** Nobody asks any more; what still comes is thrown away. */
  leave(): void {
    this.#isLeft = true;
    this.#replies.length = 0;
    this.#change();
  }

  /** The next reply, undefined after the last; rejects at once when there is an error. */
  async take(): Promise<Reply | undefined> {
    while (this.#replies.length === 0 && !this.#isEnded) await this.#changed;
    if (this.#error !== undefined) throw this.#error;
    const reply = this.#replies.shift();
    this.#change();
    return reply;
  }

  #change(): void {
    this.#wake();
    this.#changed = new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
