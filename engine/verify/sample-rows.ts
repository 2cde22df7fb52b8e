import type { FileHandle } from 'node:fs/promises';
import { elementValue } from '../../kernels/index.ts';
import { WeldlineError } from '../errors.ts';
import { elementBytes, rowBytes } from '../merge/resources.ts';
import type { PlannedDelta, PlannedTensor, TensorReference } from '../plan/plan.ts';
import { bytesOf, KERNEL_DTYPE, type MergeDtype } from '../safetensors/dtype.ts';

/** Reads bytes of a tensor of an input. */
export type ReadTensor = (
  tensor: TensorReference,
  offset: number,
  length: number,
) => Promise<Uint8Array>;

/** Half of the relative distance between neighbouring values, and the smallest such distance. */
const PRECISION: Readonly<Record<MergeDtype, { halfUlp: number; smallest: number }>> = {
  BF16: { halfUlp: 2 ** -8, smallest: 2 ** -133 },
  F16: { halfUlp: 2 ** -11, smallest: 2 ** -24 },
  F32: { halfUlp: 2 ** -24, smallest: 2 ** -149 },
};

/** Rounding of one f32 operation, relative to its result. */
const F32_UNIT = 2 ** -24;

/**
 * Works out one row of a merged tensor again, in float64 and by another road than the merge (no
 * kernel, no bands), and compares it with what was written. The written value must be the exact one
 * rounded once; what is allowed beyond that is the bound on fp32 accumulation of `rank` products.
 *
 * @param row row of the tensor as stored
 * @param output the file that holds `tensor`
 * @returns the largest distance from the exact value, in units of the dtype's rounding
 * @throws WeldlineError `verify.recomputation-mismatch`
 */
export async function verifyRow(
  tensor: PlannedTensor,
  row: number,
  read: ReadTensor,
  output: FileHandle,
): Promise<number> {
  const columns = tensor.shape.at(-1) ?? 1;
  const dtype = tensor.dtype as MergeDtype;
  const size = bytesOf(dtype);
  const written = Buffer.alloc(columns * size);
  await output.read(written, 0, written.length, tensor.offset + row * columns * size);
  const base = await readRow(tensor.from, row, columns, read);
  const { exact, bound } = await addDelta(tensor.delta, base, row, read);
  const { halfUlp, smallest } = PRECISION[dtype];
  let worst = 0;
  for (let column = 0; column < columns; column++) {
    const value = elementValue(written, column * size, KERNEL_DTYPE[dtype]);
    const expected = exact[column] ?? 0;
    const unit = Math.max(Math.abs(expected) * halfUlp, smallest / 2);
    const distance = Math.abs(value - expected);
    // A finite comparison fails for NaN, so the condition is written to.
    if (!(distance <= unit * (1 + 2 ** -7) + (bound[column] ?? 0))) {
      throw new WeldlineError(
        'verify.recomputation-mismatch',
        `"${tensor.name}" row ${row}, column ${column}: the file holds ${value}, but the base and ` +
          `adapter give ${expected}. The merge is wrong; delete the output and report this.`,
      );
    }
    worst = Math.max(worst, distance / unit);
  }
  return worst;
}

async function readRow(
  tensor: TensorReference,
  row: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const dtype = tensor.dtype as MergeDtype;
  const size = bytesOf(dtype);
  const bytes = await read(tensor, row * columns * size, columns * size);
  return decode(bytes, dtype);
}

function decode(bytes: Uint8Array, dtype: MergeDtype): Float64Array {
  const size = bytesOf(dtype);
  const values = new Float64Array(bytes.length / size);
  for (let i = 0; i < values.length; i++) {
    values[i] = elementValue(bytes, i * size, KERNEL_DTYPE[dtype]);
  }
  return values;
}

/** `base + scaling · (L R)[row]` in float64, and a bound on what fp32 arithmetic may differ by. */
async function addDelta(
  delta: PlannedDelta | undefined,
  base: Float64Array,
  row: number,
  read: ReadTensor,
): Promise<{ exact: Float64Array; bound: Float64Array }> {
  const bound = new Float64Array(base.length);
  if (delta === undefined) return { exact: base, bound };
  const left = await leftRow(delta, row, read);
  const product = new Float64Array(base.length);
  const magnitude = new Float64Array(base.length);
  for (let k = 0; k < delta.rank; k++) {
    const right = await rightRow(delta, k, base.length, read);
    const factor = left[k] ?? 0;
    for (let column = 0; column < base.length; column++) {
      const term = factor * (right[column] ?? 0);
      product[column] = (product[column] ?? 0) + term;
      magnitude[column] = (magnitude[column] ?? 0) + Math.abs(term);
    }
  }
  const exact = base.map((value, column) => value + delta.scaling * (product[column] ?? 0));
  for (let column = 0; column < base.length; column++) {
    // rank products, as many sums, the scaling and the last sum, each rounded once.
    const terms = Math.abs(delta.scaling) * (magnitude[column] ?? 0) * (delta.rank + 3);
    bound[column] = F32_UNIT * (terms + Math.abs(exact[column] ?? 0)) + 2 ** -149;
  }
  return { exact, bound };
}

/** Row `row` of L: a row of B, or a column of A. */
async function leftRow(delta: PlannedDelta, row: number, read: ReadTensor): Promise<Float64Array> {
  if (!delta.transposed) return readRow(delta.b, row, delta.rank, read);
  return readColumn(delta.a, row, read);
}

/** Row `k` of R: a row of A, or a column of B. */
async function rightRow(
  delta: PlannedDelta,
  k: number,
  columns: number,
  read: ReadTensor,
): Promise<Float64Array> {
  if (!delta.transposed) return readRow(delta.a, k, columns, read);
  return readColumn(delta.b, k, read);
}

async function readColumn(
  tensor: TensorReference,
  column: number,
  read: ReadTensor,
): Promise<Float64Array> {
  const rows = tensor.shape[0] ?? 0;
  const bytes = await read(tensor, 0, tensor.byteLength);
  const values = new Float64Array(rows);
  const dtype = KERNEL_DTYPE[tensor.dtype as MergeDtype];
  for (let row = 0; row < rows; row++) {
    const offset = row * rowBytes(tensor) + column * elementBytes(tensor);
    values[row] = elementValue(bytes, offset, dtype);
  }
  return values;
}
