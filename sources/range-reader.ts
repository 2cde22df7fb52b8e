import type { ByteSource } from '../engine/byte-source.ts';

/** Receives the bytes of a range in order, each exactly once, whatever happens to connections. */
export type RangeSink = (chunk: Uint8Array) => void | Promise<void>;

/** One pinned file, read by range; any number of ranges at a time. What downloads are made with. */
export interface RangeReader {
  /** Without credentials: `hf://org/name@commit/path`. */
  readonly name: string;
  /**
   * Streams `[offset, offset + length)` to `sink`, going on at the byte reached when a connection
   * fails. The range must not be empty and must lie within the file.
   * @throws WeldlineError `hub.*`, `source.*`, or the abort reason of `signal`
   */
  stream(offset: number, length: number, sink: RangeSink, signal?: AbortSignal): Promise<void>;
}

/** What a read holds in memory, for each connection. */
const PIECE_BYTES = 4 * 1024 * 1024;

/**
 * A source of bytes as a reader of ranges, piece by piece. Reads go on after a failed connection as
 * far as those of the source do.
 * @param open opens it for one range; closed again, which also stops a read under way
 */
export function rangeReaderOf(name: string, open: () => ByteSource): RangeReader {
  return {
    name,
    async stream(offset, length, sink, signal) {
      signal?.throwIfAborted();
      const source = open();
      const onAbort = () => void source.close();
      signal?.addEventListener('abort', onAbort, { once: true });
      try {
        for (let done = 0; done < length; done += PIECE_BYTES) {
          await sink(await source.read(offset + done, Math.min(PIECE_BYTES, length - done)));
          signal?.throwIfAborted();
        }
      } catch (error) {
        signal?.throwIfAborted();
        throw error;
      } finally {
        signal?.removeEventListener('abort', onAbort);
        await source.close();
      }
    },
  };
}
