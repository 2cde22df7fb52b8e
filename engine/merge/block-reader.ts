import type { ByteSource } from '../byte-source.ts';
import { assert } from '../errors.ts';
import type { TensorReference } from '../plan/plan.ts';
import { type StreamedInputs, streamedInput } from './streamed-input.ts';

/**
 * A request takes some 20 to 50 ms before its first byte; at 100 MB/s a block takes as long again.
 * Larger blocks are no faster, since several are on their way at a time.
 */
export const BLOCK_BYTES = 4 * 1024 * 1024;

/** As many connections as a download opens. */
const REQUESTS_MAX = 8;

/**
 * How many blocks are kept for so many threads, at least and at most: each thread is at one or at the
 * edge between two, and the rest is read ahead.
 */
export function blockCounts(threads: number): { readonly least: number; readonly most: number } {
  return { least: 2 * threads + 4, most: 2 * threads + 2 * REQUESTS_MAX };
}

/** A stretch of a file, at a multiple of {@link BLOCK_BYTES}. */
interface BlockPlace {
  readonly input: string;
  readonly file: string;
  readonly index: number;
}

interface Block {
  readonly room: Uint8Array;
  /** Resolves to how many bytes of the room count. */
  readonly loaded: Promise<Uint8Array>;
  isLoading: boolean;
  /** Readers that are between finding the block and copying from it. */
  pins: number;
  /** Counts up with each use; 0 for a block that was read ahead and not used yet. */
  lastUse: number;
}

/**
 * Reads inputs where they are, for the threads of a merge: by blocks, which are kept as long as there is
 * room, and ahead of the threads in the order in which they will need them. Memory is bounded by the
 * number of blocks, whose memory is used again and again.
 */
export class BlockReader {
  readonly #streamed: StreamedInputs;
  readonly #blocksMax: number;
  readonly #threads: number;
  readonly #order: readonly BlockPlace[];
  readonly #positions: ReadonlyMap<string, number>;
  readonly #sources = new Map<string, Promise<ByteSource>>();
  readonly #blocks = new Map<string, Block>();
  readonly #free: Uint8Array[] = [];
  #allocated = 0;
  #uses = 0;
  #loading = 0;
  /** Position up to which blocks were read ahead. */
  #frontier = 0;
  #waiting: (() => void)[] = [];
  #isClosed = false;

  /**
   * @param order tensors in the order in which they will be needed
   * @param blocksMax blocks in memory: see {@link blockCounts}
   */
  constructor(
    streamed: StreamedInputs,
    order: readonly TensorReference[],
    { blocksMax, threads }: { readonly blocksMax: number; readonly threads: number },
  ) {
    this.#streamed = streamed;
    this.#blocksMax = blocksMax;
    this.#threads = threads;
    const places = new Map<string, BlockPlace>();
    for (const { input, file, offset, byteLength } of order) {
      if (byteLength === 0 || streamedInput(streamed, input, file) === undefined) continue;
      const last = Math.floor((offset + byteLength - 1) / BLOCK_BYTES);
      for (let index = Math.floor(offset / BLOCK_BYTES); index <= last; index++) {
        const place = { input, file, index };
        places.set(keyOf(place), place);
      }
    }
    this.#order = [...places.values()];
    this.#positions = new Map([...places.keys()].map((key, position) => [key, position]));
  }

  /**
   * Fills `into` from `position` in a file.
   * @throws WeldlineError what the source throws
   */
  async read(input: string, file: string, position: number, into: Uint8Array): Promise<void> {
    for (let done = 0; done < into.length; ) {
      const at = position + done;
      const index = Math.floor(at / BLOCK_BYTES);
      const block = await this.#blockAt({ input, file, index });
      try {
        const bytes = await block.loaded;
        const piece = bytes.subarray(at - index * BLOCK_BYTES).subarray(0, into.length - done);
        assert(piece.length > 0, `${file} is read beyond its end`);
        into.set(piece, done);
        done += piece.length;
      } finally {
        block.pins--;
        block.lastUse = ++this.#uses;
        this.#wake();
      }
      this.#readAhead();
    }
  }

  /** Ends all reading; what waits for bytes is told so. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#wake();
    for (const source of await Promise.allSettled(this.#sources.values())) {
      if (source.status === 'fulfilled') await source.value.close();
    }
    const blocks = [...this.#blocks.values()];
    await Promise.allSettled(blocks.map(({ loaded }) => loaded));
    // A block that could not be loaded has given its room back already.
    const rooms = new Set([...this.#free, ...blocks.map(({ room }) => room)]);
    this.#blocks.clear();
    this.#free.length = 0;
    for (const room of rooms) release(room);
  }

  /** A block, pinned; loads it if it is not there. */
  async #blockAt(place: BlockPlace): Promise<Block> {
    const key = keyOf(place);
    const position = this.#positions.get(key) ?? 0;
    for (;;) {
      assert(!this.#isClosed, 'inputs are read after they were closed');
      const found = this.#blocks.get(key);
      if (found !== undefined) {
        found.pins++;
        this.#frontier = Math.max(this.#frontier, position + 1);
        this.#readAhead();
        return found;
      }
      const room = this.#takeRoom(true);
      if (room !== undefined) {
        const block = this.#load(place, room);
        block.pins++;
        // A thread that fell behind only wants its block again; what is further back is a new pass.
        const isBehind = position < this.#frontier && this.#frontier - position <= this.#blocksMax;
        if (!isBehind) this.#frontier = position + 1;
        this.#readAhead();
        return block;
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** Loads what follows, as far as there is room that nobody will miss. */
  #readAhead(): void {
    while (!this.#isClosed && this.#loading < REQUESTS_MAX) {
      const place = this.#order[this.#frontier];
      if (place === undefined) return;
      if (!this.#blocks.has(keyOf(place))) {
        const room = this.#takeRoom(false);
        if (room === undefined) return;
        // Whoever asks for the block gets the error; nobody may have to.
        this.#load(place, room).loaded.catch(() => undefined);
      }
      this.#frontier++;
    }
  }

  #load(place: BlockPlace, room: Uint8Array): Block {
    const key = keyOf(place);
    this.#loading++;
    const loaded = this.#fill(place, room);
    const block: Block = { room, loaded, isLoading: true, pins: 0, lastUse: 0 };
    this.#blocks.set(key, block);
    const settled = (): void => {
      block.isLoading = false;
      this.#loading--;
      this.#readAhead();
      this.#wake();
    };
    loaded.then(settled, () => {
      // The next one who asks tries again.
      this.#blocks.delete(key);
      this.#free.push(room);
      settled();
    });
    return block;
  }

  async #fill({ input, file, index }: BlockPlace, room: Uint8Array): Promise<Uint8Array> {
    const source = await this.#sourceOf(input, file);
    const begin = index * BLOCK_BYTES;
    const length = Math.min(BLOCK_BYTES, source.size - begin);
    return source.read(begin, length, room);
  }

  #sourceOf(input: string, file: string): Promise<ByteSource> {
    const key = `${input}/${file}`;
    let source = this.#sources.get(key);
    if (source === undefined) {
      const from = streamedInput(this.#streamed, input, file);
      assert(from !== undefined, `${key} is not streamed`);
      source = from.files.open(file);
      this.#sources.set(key, source);
    }
    return source;
  }

  /**
   * Memory for a block: unused, or of the block that was used the longest ago.
   * @param isNeeded whether blocks that wait to be used, or are the last ones used, may go too
   */
  #takeRoom(isNeeded: boolean): Uint8Array | undefined {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#allocated < this.#blocksMax) {
      this.#allocated++;
      return new Uint8Array(BLOCK_BYTES);
    }
    const idle = [...this.#blocks].filter(([, { isLoading, pins }]) => !isLoading && pins === 0);
    const used = idle.filter(([, { lastUse }]) => lastUse > 0);
    used.sort(([, a], [, b]) => a.lastUse - b.lastUse);
    const [victim] = isNeeded && used.length === 0 ? idle : used;
    if (victim === undefined) return undefined;
    // A window is part of two blocks, a block of several windows: threads are about to read on.
    if (!isNeeded && used.length <= 2 * this.#threads) return undefined;
    this.#blocks.delete(victim[0]);
    return victim[1].room;
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }
}

/**
 * Gives memory back at once. The collector leaves it for as long as little else is made, and the next shard
 * has as much again. Node 20 cannot.
 */
function release({ buffer }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer) buffer.transfer?.(0);
}

function keyOf({ input, file, index }: BlockPlace): string {
  return `${input}/${file}#${index}`;
}
