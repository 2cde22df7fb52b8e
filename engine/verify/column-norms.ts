import { bandSteps, needsColumnNorms } from '../merge/bands/band-steps.ts';
import { matrixOf } from '../merge/tensor-work.ts';
import type { PlannedDelta, PlannedTensor } from '../plan/plan.ts';
import { dequantizedRow } from './dequantized-row.ts';
import { type ReadTensor, readRows } from './factor-rows.ts';

/** Rows of a tensor that are read at once. */
const ROWS_MAX = 64;

/** Norms of the columns of source + delta, by delta, of those deltas of a tensor that need them. */
export type ColumnNorms = ReadonlyMap<PlannedDelta, Float64Array>;

/**
 * Works out in float64 the norms that DoRA needs where the outputs of a weight are its columns. It
 * takes all of its rows.
 */
export async function columnNorms(tensor: PlannedTensor, read: ReadTensor): Promise<ColumnNorms> {
  const norms = new Map<PlannedDelta, Float64Array>();
  for (const step of bandSteps(tensor) ?? []) {
    if (!needsColumnNorms(step)) continue;
    norms.set(step.delta, await normsOf(tensor, step.delta, read));
  }
  return norms;
}

async function normsOf(
  tensor: PlannedTensor,
  { a, b, rank, scaling }: PlannedDelta,
  read: ReadTensor,
): Promise<Float64Array> {
  const { rows, columns } = matrixOf(tensor);
  // Stored [in, out]: element (i, j) of the delta is row j of B times column i of A.
  const right = await readRows(b ?? a, 0, columns, rank, read);
  const left = await readRows(a, 0, rank, rows, read);
  const squares = new Float64Array(columns);
  for (let begin = 0; begin < rows; begin += ROWS_MAX) {
    const count = Math.min(ROWS_MAX, rows - begin);
    const source = await sourceRows(tensor, begin, count, columns, read);
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < columns; j++) {
        let sum = 0;
        for (let k = 0; k < rank; k++) {
          sum += right[j * rank + k]! * left[k * rows + begin + i]!;
        }
        squares[j]! += (source[i * columns + j]! + scaling * sum) ** 2;
      }
    }
  }
  return squares.map((each) => Math.sqrt(each));
}

async function sourceRows(
  { from }: PlannedTensor,
  begin: number,
  count: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const { quantization } = from;
  if (quantization === undefined) return readRows(from, begin, count, columns, read);
  const rows = new Float64Array(count * columns);
  for (let i = 0; i < count; i++) {
    const row = await dequantizedRow({ ...from, quantization }, begin + i, columns, read);
    rows.set(row, i * columns);
  }
  return rows;
}
