import { assert, WeldlineError } from '../engine/errors.ts';

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** @throws WeldlineError `source.out-of-range` unless the range lies within `size` bytes */
export function checkRange(name: string, size: number, offset: number, length: number): void {
  assert(
    Number.isSafeInteger(offset) && Number.isSafeInteger(length) && length >= 0,
    `a read of ${name} at ${offset} for ${length} bytes`,
  );
  if (offset < 0 || offset + length > size) {
    throw new WeldlineError(
      'source.out-of-range',
      `Bytes ${offset} to ${offset + length} were asked of ${name}, which has ${size}.`,
    );
  }
}
