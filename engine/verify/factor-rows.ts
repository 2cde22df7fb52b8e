import { decodeElements } from '../../kernels/index.ts';
import { elementBytes, rowBytes, rowsPerPiece } from '../merge/arena-sizes.ts';
import type { PlannedDelta, TensorReference } from '../plan/plan.ts';
import { bytesOf, KERNEL_DTYPE, type MergeDtype } from '../safetensors/dtype.ts';

/** Reads bytes of a tensor of an input. */
export type ReadTensor = (
  tensor: TensorReference,
  offset: number,
  length: number,
) => Promise<Uint8Array>;

/** Rows of a two-dimensional tensor as stored, or a stretch of elements of any other. */
export async function readRows(
  tensor: TensorReference,
  begin: number,
  count: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const dtype = tensor.dtype as MergeDtype;
  const rowSize = columns * bytesOf(dtype);
  return decode(await read(tensor, begin * rowSize, count * rowSize), dtype);
}

export function decode(bytes: Uint8Array, dtype: MergeDtype): Float64Array {
  return decodeElements(bytes, KERNEL_DTYPE[dtype]);
}

/** Row `row` of L: a row of B, a column of A, or 1 for a bias. */
export async function leftRow(
  delta: PlannedDelta,
  row: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const { a, b, rank, rankScale, outScale } = delta;
  if (b === undefined) return Float64Array.of(1);
  if (!delta.transposed) {
    const values = await readRows(b, row, 1, rank, read);
    const scale = outScale && (await readRows(outScale, row, 1, 1, read))[0]!;
    return scale === undefined ? values : values.map((value) => Math.fround(scale * value));
  }
  const values = new Float64Array(rank);
  for (let k = 0; k < rank; k++) {
    const offset = k * rowBytes(a) + row * elementBytes(a);
    const bytes = await read(a, offset, elementBytes(a));
    values[k] = decode(bytes, a.dtype as MergeDtype)[0]!;
  }
  const scales = rankScale && (await readRows(rankScale, 0, rank, 1, read));
  return scales === undefined ? values : values.map((value, k) => Math.fround(scales[k]! * value));
}

/** The rows of R, one after the other: rows of A, or columns of B, scaled where the delta says so. */
export async function* rightRows(
  delta: PlannedDelta,
  columns: number,
  read: ReadTensor,
): AsyncGenerator<{ k: number; right: Float64Array }> {
  const { a, rank, rankScale, outScale, transposed } = delta;
  if (transposed && delta.b !== undefined) {
    const b = await readRows(delta.b, 0, columns, rank, read);
    const scales = outScale && (await readRows(outScale, 0, columns, 1, read));
    const element = (i: number, k: number): number =>
      scales === undefined ? b[i * rank + k]! : Math.fround(scales[i]! * b[i * rank + k]!);
    for (let k = 0; k < rank; k++) {
      yield { k, right: Float64Array.from({ length: columns }, (_, i) => element(i, k)) };
    }
    return;
  }
  const scales = rankScale && (await readRows(rankScale, 0, rank, 1, read));
  // A shared A has more columns than this module.
  const width = a.shape[1] ?? columns;
  const step = rowsPerPiece(a);
  for (let begin = 0; begin < rank; begin += step) {
    const count = Math.min(step, rank - begin);
    const piece = await readRows(a, begin, count, width, read);
    for (let i = 0; i < count; i++) {
      const right = piece.subarray(i * width, i * width + columns);
      const scale = scales?.[begin + i];
      yield {
        k: begin + i,
        right: scale === undefined ? right : right.map((value) => Math.fround(scale * value)),
      };
    }
  }
}
