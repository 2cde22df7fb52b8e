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

/** Row `row` of a delta's L: a row of B, a column of A, or 1 for a bias. */
export async function leftRow(
  delta: PlannedDelta,
  row: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const { a, b, rank, rankScale, outScale } = delta;
  if (b === undefined) return Float64Array.of(1);
  if (!delta.transposed) {
    const values = columnsOfB(delta, await readRows(b, row, 1, b.shape[1] ?? 1, read));
    const scale = outScale && (await readRows(outScale, row, 1, 1, read))[0]!;
    return scale === undefined ? values : values.map((value) => Math.fround(scale * value));
  }
  const values = new Float64Array(rank);
  const column = (delta.aColumn ?? 0) + row;
  for (let k = 0; k < rank; k++) {
    const offset = k * rowBytes(a) + column * elementBytes(a);
    const bytes = await read(a, offset, elementBytes(a));
    values[k] = decode(bytes, a.dtype as MergeDtype)[0]!;
  }
  const scales = rankScale && (await readRows(rankScale, 0, rank, 1, read));
  return scales === undefined ? values : values.map((value, k) => Math.fround(scales[k]! * value));
}

/** Of a stored row of B, what belongs to the delta: all of it, or one expert's columns. */
function columnsOfB({ rank, bColumns }: PlannedDelta, stored: Float64Array): Float64Array {
  if (bColumns === undefined) return stored;
  const { begin, step } = bColumns;
  return Float64Array.from({ length: rank }, (_, k) => stored[begin + k * step]!);
}

/**
 * Rows of B, some at a time: of all experts they are large.
 * @param count of them: a shared B has rows of larger modules behind those of this one
 */
async function rowsOfB(
  delta: PlannedDelta,
  b: TensorReference,
  count: number,
  read: ReadTensor,
): Promise<Float64Array[]> {
  const stored = b.shape[1] ?? 1;
  const rows: Float64Array[] = [];
  const step = rowsPerPiece(b);
  for (let begin = 0; begin < count; begin += step) {
    const piece = await readRows(b, begin, Math.min(step, count - begin), stored, read);
    for (let at = 0; at < piece.length; at += stored) {
      rows.push(columnsOfB(delta, piece.subarray(at, at + stored)));
    }
  }
  return rows;
}

/** The rows of R, one after the other: rows of A, or columns of B, scaled where the delta says so. */
export async function* rightRows(
  delta: PlannedDelta,
  columns: number,
  read: ReadTensor,
): AsyncGenerator<{ k: number; right: Float64Array }> {
  const { a, rank, rankScale, outScale, transposed } = delta;
  if (transposed && delta.b !== undefined) {
    const rows = await rowsOfB(delta, delta.b, columns, read);
    const scales = outScale && (await readRows(outScale, 0, columns, 1, read));
    const scaled = (value: number, i: number): number =>
      scales === undefined ? value : Math.fround(scales[i]! * value);
    for (let k = 0; k < rank; k++) {
      yield { k, right: Float64Array.from(rows, (row, i) => scaled(row[k]!, i)) };
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
