import type { ByteSource } from '../byte-source.ts';

/**
 * Where shards go as they are made, instead of this machine's disk: a place that takes a file in parts
 * and shows it when all are there.
 */
export interface ShardSink {
  /** The place, for people: a URI without credentials. */
  readonly name: string;
  /**
   * How long the parts of a file are, but for the last: a multiple of 4 KiB, and a function of its size
   * alone, so that every attempt cuts it in the same places.
   */
  partBytesFor(size: number): number;
  /**
   * Goes on with an upload, or begins one.
   * @param id of the one that an earlier attempt left; it may be gone, and has no parts then
   */
  open(file: string, id: string | undefined, signal: AbortSignal): Promise<ShardUpload>;
  /** A file that is whole there; undefined if there is none. */
  find(file: string, signal: AbortSignal): Promise<SentFile | undefined>;
  /** A file of the same merge that is published there already, as its manifest says. */
  findPublished(
    file: string,
    signal: AbortSignal,
  ): Promise<(SentFile & { readonly sha256: string }) | undefined>;
  /** Reads a file back; fails once it is another one. */
  read(file: string, there: SentFile): ByteSource;
  /** Notes what the bytes of a file are, so that it is known when it is published. Idempotent. */
  record(
    file: string,
    known: SentFile & { readonly sha256: string },
    signal: AbortSignal,
  ): Promise<void>;
}

export interface SentFile {
  /** Bytes. */
  readonly size: number;
  /** Another file in its place has another. */
  readonly etag: string;
}

export interface SentPart extends SentFile {
  /** From 1. */
  readonly number: number;
  /** Hex. */
  readonly sha256: string;
}

/** One upload of one file. */
export interface ShardUpload {
  readonly id: string;
  /** What is there of it, by number. */
  parts(): Promise<ReadonlyMap<number, SentFile>>;
  /** Sends a part; several at a time, in any order. The bytes may be used again afterwards. */
  put(number: number, bytes: Uint8Array): Promise<SentPart>;
  /** Makes the file of its parts. */
  complete(parts: readonly SentPart[]): Promise<void>;
}
