import type { ByteSource } from '../../engine/byte-source.ts';
import { assert } from '../../engine/errors.ts';
import { checkRange } from '../../sources/byte-range.ts';

export interface CountingSource extends ByteSource {
  /** The ranges read so far, `[offset, length]`. */
  readonly reads: readonly (readonly [number, number])[];
}

/** Bytes in memory that remember what was read of them. */
export function countingSource(content: Uint8Array, name = 'memory'): CountingSource {
  const reads: (readonly [number, number])[] = [];
  let closed = false;
  return {
    name,
    size: content.byteLength,
    reads,
    async read(offset, length) {
      assert(!closed, `${name} is read after it was closed`);
      checkRange(name, content.byteLength, offset, length);
      reads.push([offset, length]);
      return Uint8Array.from(content.subarray(offset, offset + length));
    },
    async close() {
      closed = true;
    },
  };
}
