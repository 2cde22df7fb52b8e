/**
 * The read port of weldline: anything of known size that can be read by range.
 *
 * Every implementation passes the conformance suite in `test/conformance/byte-source.ts`.
 */
export interface ByteSource {
  /** What a person would call it in an error: a path or a URI without credentials. */
  readonly name: string;
  /** Size in bytes, fixed when the source was opened. */
  readonly size: number;
  /**
   * Reads exactly `length` bytes at `offset`. Idempotent.
   * @param room at least `length` bytes that may be used for the result, so that none need be
   *   allocated
   * @throws WeldlineError `source.out-of-range` if the range does not lie within the source;
   *   `disk.read-failed` or a `hub.*` code if the bytes cannot be had.
   */
  read(offset: number, length: number, room?: Uint8Array): Promise<Uint8Array>;
  /** Releases what is held open. Safe to call twice. */
  close(): Promise<void>;
}
