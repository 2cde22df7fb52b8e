import { decodeElements } from '../../kernels/index.ts';
import type { ByteSource } from '../byte-source.ts';
import { WeldlineError } from '../errors.ts';
import type { Cut } from '../merge/bands/find-cut.ts';
import type { PlannedTensor } from '../plan/plan.ts';
import { bytesOf, KERNEL_DTYPE, type MergeDtype } from '../safetensors/dtype.ts';
import type { ReadTensor } from './factor-rows.ts';
import { type ExactRow, exactRows } from './sample-rows.ts';

const { fround } = Math;

/** A file of the merged checkpoint. */
export type Output = Pick<ByteSource, 'read'>;

/** Half of the relative distance between neighbouring values, and the smallest such distance. */
const PRECISION: Readonly<Record<MergeDtype, { halfUlp: number; smallest: number }>> = {
  BF16: { halfUlp: 2 ** -8, smallest: 2 ** -133 },
  F16: { halfUlp: 2 ** -11, smallest: 2 ** -24 },
  F32: { halfUlp: 2 ** -24, smallest: 2 ** -149 },
};

/**
 * Works out rows of a merged tensor again, in float64 and by another road than the merge (no
 * kernel, no bands), and compares them with what was written. A 16-bit value must be the exact one
 * rounded once (from a quantised base, of what that dequantises to); what is allowed beyond that is
 * the bound on fp32 accumulation of `rank` products. An F32 value is defined as the float64 one
 * rounded, and must be that; with DoRA it is within the bound on the three roundings that its steps
 * have. Of deltas that are combined otherwise than by their sum see `thinnedRow`.
 *
 * @param rows rows of the tensor as stored
 * @param output the file that holds `tensor`
 * @param cuts of each delta, where a combination keeps the largest
 * @returns the largest distance from the exact value, in units of the dtype's rounding
 * @throws WeldlineError `verify.recomputation-mismatch`
 */
export async function verifyRows(
  tensor: PlannedTensor,
  rows: readonly number[],
  read: ReadTensor,
  output: Output,
  cuts: readonly Cut[] = [],
): Promise<number> {
  let worst = 0;
  for (const row of await exactRows(tensor, rows, read, cuts)) {
    worst = Math.max(worst, await compareRow(tensor, row, output));
  }
  return worst;
}

async function compareRow(
  tensor: PlannedTensor,
  { row, exact, bound, isSum }: ExactRow,
  output: Output,
): Promise<number> {
  const dtype = tensor.dtype as MergeDtype;
  const written = await writtenRow(tensor, row, exact.length, output);
  const { halfUlp, smallest } = PRECISION[dtype];
  let worst = 0;
  for (let column = 0; column < exact.length; column++) {
    const value = exact[column]!;
    const unit = Math.max(Math.abs(value) * halfUlp, smallest / 2);
    const distance = Math.abs(written[column]! - value);
    // Comparisons with NaN are false, so they say what is right.
    const isRight =
      dtype === 'F32' && isSum
        ? written[column] === fround(value)
        : distance <= unit * (1 + 2 ** -7) + bound[column]!;
    if (!isRight) {
      throw new WeldlineError(
        'verify.recomputation-mismatch',
        `"${tensor.name}" row ${row}, column ${column}: the file holds ${written[column]}, but the ` +
          `inputs give ${value}. The merge is wrong; delete the output and report this.`,
      );
    }
    worst = Math.max(worst, distance / unit);
  }
  return worst;
}

async function writtenRow(
  tensor: PlannedTensor,
  row: number,
  columns: number,
  output: Output,
): Promise<Float64Array> {
  const dtype = tensor.dtype as MergeDtype;
  const length = columns * bytesOf(dtype);
  const bytes = await output.read(tensor.offset + row * length, length);
  return decodeElements(bytes, KERNEL_DTYPE[dtype]);
}
