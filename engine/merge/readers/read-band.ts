import type { TensorReference } from '../../plan/plan.ts';
import type { InputFiles } from '../input-files.ts';

/** A read takes about as long as copying this many bytes: smaller gaps are read along. */
const GAP_BYTES_MAX = 8 * 1024;

/** What is read at a time where gaps are. */
const PIECE_BYTES = 256 * 1024;

/** Some columns of some rows of a matrix, in bytes. */
export interface Band {
  /** Of the first byte, from the beginning of the tensor. */
  readonly offset: number;
  readonly rows: number;
  /** From one row to the next. */
  readonly stride: number;
  /** Of each row. */
  readonly bytes: number;
}

/** Reads a band row after row into neighbouring bytes. */
export function readBand(
  files: InputFiles,
  tensor: TensorReference,
  { offset, rows, stride, bytes }: Band,
  into: Uint8Array,
): void {
  if (bytes === stride) {
    files.read(tensor, offset, into.subarray(0, rows * bytes));
    return;
  }
  if (stride - bytes > GAP_BYTES_MAX) {
    for (let row = 0; row < rows; row++) {
      const at = row * bytes;
      files.read(tensor, offset + row * stride, into.subarray(at, at + bytes));
    }
    return;
  }
  const step = Math.max(1, Math.floor(PIECE_BYTES / stride));
  const piece = new Uint8Array(step * stride);
  for (let row = 0; row < rows; row += step) {
    const count = Math.min(step, rows - row);
    // Not what follows the last row: it may be the end of the file.
    const length = (count - 1) * stride + bytes;
    files.read(tensor, offset + row * stride, piece.subarray(0, length));
    for (let i = 0; i < count; i++) {
      const from = i * stride;
      into.set(piece.subarray(from, from + bytes), (row + i) * bytes);
    }
  }
}
