import type { TensorReference } from '../plan/plan.ts';
import type { InputFiles } from './input-files.ts';

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
  for (let row = 0; row < rows; row++) {
    const at = row * bytes;
    files.read(tensor, offset + row * stride, into.subarray(at, at + bytes));
  }
}
