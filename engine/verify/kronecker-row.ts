import type { PlannedChange } from '../plan/plan.ts';
import { type ReadTensor, readRows } from './factor-rows.ts';

type Kronecker = Extract<PlannedChange, { kind: 'kronecker' }>;

/** Row `row` of `scaling · left ⊗ right` in float64, by its definition, element by element. */
export async function kroneckerRow(
  { left, right, scaling }: Kronecker,
  row: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const height = right.a.shape[0] ?? 1;
  const lefts = await matrixRow(left, Math.floor(row / height), read);
  const rights = await matrixRow(right, row % height, read);
  const width = rights.length;
  return Float64Array.from(
    { length: lefts.length * width },
    (_, column) => scaling * lefts[Math.floor(column / width)]! * rights[column % width]!,
  );
}

async function matrixRow(
  { a, b }: Kronecker['left'],
  row: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const stored = await readRows(a, row, 1, a.shape[1] ?? 0, read);
  if (b === undefined) return stored;
  const [rank = 0, columns = 0] = b.shape;
  const factor = await readRows(b, 0, rank, columns, read);
  return Float64Array.from({ length: columns }, (_, column) =>
    stored.reduce((sum, value, k) => sum + value * factor[k * columns + column]!, 0),
  );
}
