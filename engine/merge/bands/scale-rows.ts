import type { TensorReference } from '../../plan/plan.ts';
import type { InputFiles } from '../input-files.ts';
import { readNumbers } from '../read-numbers.ts';
import type { Band } from './dense-deltas.ts';

/**
 * The last step of DoRA (PEFT's `DoraLinearVariant`): `m / |x| · x`, row by row, where |x| is the L2
 * norm of the row and m its trained length. The norm is added up in float64, and the result rounded
 * to float32: PEFT's steps, of which the norm is exact here.
 *
 * @param from [rows, columns], and `to` the same, where the scaled rows go
 */
export function scaleRows(
  magnitude: TensorReference,
  { begin, rows, columns }: Band,
  files: InputFiles,
  from: Float32Array,
  to: Float32Array,
): void {
  for (const [row, length] of readNumbers(files, magnitude, begin, rows).entries()) {
    scaleRow(from, to, row * columns, (row + 1) * columns, length);
  }
}

/** Elements [begin, end) of `from`, scaled to a length, into the same places of `to`. */
function scaleRow(
  from: Float32Array,
  to: Float32Array,
  begin: number,
  end: number,
  length: number,
): void {
  let squares = 0;
  for (let i = begin; i < end; i++) squares += from[i]! * from[i]!;
  const factor = length / Math.sqrt(squares);
  for (let i = begin; i < end; i++) to[i] = factor * from[i]!;
}
