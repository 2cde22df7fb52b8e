import type { Hash } from 'node:crypto';
import type { SentPart, ShardUpload } from './shard-sink.ts';

export interface PartSenderOptions {
  readonly upload: ShardUpload;
  /** Bytes of each part but the last. */
  readonly partBytes: number;
  /** Of the whole file. */
  readonly size: number;
  /** Where the first window begins: at a part. */
  readonly begin: number;
  /** Parts in memory. */
  readonly partsMax: number;
  /** Parts that are there already, though one before them is not; by number. */
  readonly known: ReadonlyMap<number, SentPart>;
  /** Hashes all that is sent, in file order; absent where the file's beginning was sent before. */
  readonly hash: Hash | undefined;
  /** A window's bytes were taken: its memory may be used again. */
  readonly onTaken: (windows: number) => void;
  readonly onSent: (part: SentPart) => void;
  readonly onFailure: (error: unknown) => void;
}

/**
 * Takes the windows of a file in file order, cuts them into parts and sends those, several at a time.
 * Where all memory for parts is on its way, windows wait where they were made, and with them the threads.
 */
export class PartSender {
  readonly #options: PartSenderOptions;
  readonly #made = new Map<number, Uint8Array>();
  readonly #free: Uint8Array[] = [];
  #allocated = 0;
  #windowsTaken = 0;
  /** Bytes of the next window that went into a part already. */
  #takenOfNext = 0;
  #position: number;
  /** The part that is being filled. */
  #filling: Uint8Array | undefined;
  #inFlight = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;

  constructor(options: PartSenderOptions) {
    this.#options = options;
    this.#position = options.begin;
  }

  /** @param bytes of a window, which stay until it was taken */
  add(index: number, bytes: Uint8Array): void {
    this.#made.set(index, bytes);
    this.#take();
  }

  /** Waits for what is on its way; threads that were stopped have left windows that never come. */
  async settle(): Promise<void> {
    while (this.#inFlight.size > 0) await Promise.all(this.#inFlight);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #take(): void {
    for (;;) {
      const window = this.#made.get(this.#windowsTaken);
      if (window === undefined || this.#failure !== undefined) return;
      while (this.#takenOfNext < window.length) {
        const part = this.#roomForPart();
        if (part === undefined) return;
        this.#fill(part, window);
      }
      this.#options.hash?.update(window);
      this.#made.delete(this.#windowsTaken);
      this.#windowsTaken++;
      this.#takenOfNext = 0;
      this.#options.onTaken(this.#windowsTaken);
    }
  }

  #fill(part: Uint8Array, window: Uint8Array): void {
    const { partBytes, size } = this.#options;
    const at = this.#position % partBytes;
    const begin = this.#position - at;
    const end = Math.min(size, begin + partBytes);
    const piece = window.subarray(this.#takenOfNext).subarray(0, end - this.#position);
    part.set(piece, at);
    this.#takenOfNext += piece.length;
    this.#position += piece.length;
    if (this.#position < end) return;
    this.#filling = undefined;
    this.#send(1 + begin / partBytes, part, end - begin);
  }

  #send(number: number, part: Uint8Array, length: number): void {
    const { known, upload } = this.#options;
    const there = known.get(number);
    const put = there ? Promise.resolve(there) : upload.put(number, part.subarray(0, length));
    const sending = put.then(
      (sent) => {
        this.#free.push(part);
        this.#options.onSent(sent);
        this.#take();
      },
      (error: unknown) => {
        this.#failure ??= { error };
        this.#options.onFailure(error);
      },
    );
    const tracked = sending.finally(() => this.#inFlight.delete(tracked));
    this.#inFlight.add(tracked);
  }

  #roomForPart(): Uint8Array | undefined {
    this.#filling ??= this.#free.pop();
    if (this.#filling === undefined && this.#allocated < this.#options.partsMax) {
      this.#allocated++;
      const { partBytes, size } = this.#options;
      this.#filling = new Uint8Array(Math.min(partBytes, size));
    }
    return this.#filling;
  }
}
