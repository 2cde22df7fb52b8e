import type { IntegerConversion } from '../../config/release-quality.ts';
import { dequantizeRows, unpackZeros, wordsOf } from '../../engine/quantization/integer-rows.ts';
import type { CheckpointTensor } from '../../engine/safetensors/checkpoint.ts';
import { bytesOf, isMergeDtype, type MergeDtype } from '../../engine/safetensors/dtype.ts';
import { decode } from '../../engine/verify/factor-rows.ts';
import { checkFailed } from './check-failed.ts';
import type { IntegerTensors } from './integer-checkpoint.ts';
import type { IntegerModule } from './integer-modules.ts';
import type { Smoothing } from './smoothing.ts';

/** Elements at a time: some megabytes in float64. */
const ELEMENTS_MAX = 1 << 20;
/** A multiple of all that share a word of zero points. */
const ROWS_STEP = 8;

/** Integers of other weights have an error of 1.4 and all zeros 1; of GPTQ, 4 bits have 0.1 to 0.3. */
const LAYER_ERROR_MAX = 0.9;

/**
 * AWQ takes the nearest integer, half a step away at most, but works in 16 bits: the weight times
 * AWQ's scales, the step, the zero point and the quotient are rounded, each by up to 2⁻⁹ of what can be
 * as large as all steps together. Six such roundings are more than were ever seen to add up.
 */
function stepsMax(bits: number): number {
  return 0.5 + 6 * 2 ** (bits - 9);
}

/** Dividing a norm takes three roundings where it multiplies with 1 + weight. */
const SMOOTHED_ROUNDING = 2 ** -6;

/** Reads bytes of a tensor, of the merged or of the quantised checkpoint. */
export type ReadPart = (
  tensor: CheckpointTensor,
  offset: number,
  length: number,
) => Promise<Uint8Array>;

export interface ComparedModule {
  readonly module: IntegerModule;
  readonly weight: CheckpointTensor;
  readonly integers: IntegerTensors;
  readonly smoothing: Smoothing | undefined;
  readonly settings: IntegerConversion;
  readonly readMerged: ReadPart;
  readonly readIntegers: ReadPart;
}

/**
 * The relative error of a module's integers, `‖R Q C⁻¹ − W‖ / ‖W‖` in the Frobenius norm: Q is what
 * they dequantise to, and R and C are AWQ's scales of rows and columns (1 for GPTQ), which the
 * modules before and after undo.
 *
 * @throws WeldlineError `convert.check-failed` for a scale that is no positive number, an integer of
 *   AWQ that is not the nearest, or an error that no quantisation has
 */
export async function compareModule(compared: ComparedModule): Promise<number> {
  const { module, integers, readIntegers } = compared;
  const shape = await readIntegers(integers.shape, 0, integers.shape.byteLength);
  const step = integers.shape.byteLength / 2;
  const view = new DataView(shape.buffer, shape.byteOffset, shape.byteLength);
  const [rows, columns] = [view.getUint32(0, true), view.getUint32(step, true)];
  if (rows !== module.rows || columns !== module.columns) {
    throw checkFailed(`${module.name}.weight_shape says [${rows}, ${columns}]`);
  }
  const sums = { error: 0, weight: 0 };
  const rowsMax = Math.max(1, Math.floor(ELEMENTS_MAX / columns / ROWS_STEP)) * ROWS_STEP;
  for (let first = 0; first < rows; first += rowsMax) {
    await compareRows(compared, first, Math.min(rowsMax, rows - first), sums);
  }
  const error = Math.sqrt(sums.error / (sums.weight || 1));
  // AWQ's integers have been compared one by one, and its error has no bound: it may spend all of its
  // precision on a few columns.
  if (compared.settings.kind === 'awq' || error < LAYER_ERROR_MAX) return error;
  throw checkFailed(`${module.name} differs from the merged weight by ${percent(error)}`);
}

async function compareRows(
  compared: ComparedModule,
  first: number,
  count: number,
  sums: { error: number; weight: number },
): Promise<void> {
  const { module, settings, smoothing, weight, readMerged } = compared;
  const { columns } = module;
  const { scales, zeros, packed } = await readCodes(compared, first, count);
  const { bits, groupSize } = settings;
  const values = dequantizeRows({ bits, columns, groupSize, packed, scales, zeros });
  const dtype = weight.dtype as MergeDtype;
  const rowBytes = columns * bytesOf(dtype);
  const originals = decode(await readMerged(weight, first * rowBytes, count * rowBytes), dtype);
  const nearestMax = settings.kind === 'awq' ? stepsMax(bits) : Number.POSITIVE_INFINITY;
  const ofColumns = smoothing?.columns;
  const groups = columns / groupSize;
  let at = 0;
  for (let row = 0; row < count; row++) {
    const ofRow = rowScale(smoothing, first + row, module.rows);
    for (let column = 0; column < columns; column++, at++) {
      const factor = (ofColumns?.[column] ?? 1) / ofRow;
      const value = values[at]!;
      const original = originals[at]!;
      const smoothed = original * factor;
      const scale = scales[row * groups + Math.floor(column / groupSize)]!;
      if (!(Math.abs(value - smoothed) <= nearestMax * scale)) {
        throw checkFailed(
          `${module.name} has the integer of ${value} at [${first + row}, ${column}], where ` +
            `${smoothed} was quantised in steps of ${scale}`,
        );
      }
      sums.error += (value / factor - original) ** 2;
      sums.weight += original ** 2;
    }
  }
}

async function readCodes(
  { module, integers, settings, readIntegers }: ComparedModule,
  first: number,
  count: number,
): Promise<{ packed: Uint32Array; scales: Float64Array; zeros: Int8Array | undefined }> {
  const { bits, groupSize } = settings;
  const groups = module.columns / groupSize;
  const rowBytes = wordsOf(module.columns, bits) * 4;
  const packed = toWords(await readIntegers(integers.packed, first * rowBytes, count * rowBytes));
  const dtype = integers.scale.dtype as MergeDtype;
  const scaleBytes = groups * bytesOf(dtype);
  const bytes = await readIntegers(integers.scale, first * scaleBytes, count * scaleBytes);
  const scales = decode(bytes, dtype);
  const bad = scales.findIndex((scale) => !(scale > 0 && scale < Number.POSITIVE_INFINITY));
  if (bad !== -1) {
    const place = `[${first + Math.floor(bad / groups)}, ${bad % groups}]`;
    throw checkFailed(`${module.name}.weight_scale has ${scales[bad]} at ${place}`);
  }
  if (integers.zeros === undefined) return { packed, scales, zeros: undefined };
  const begin = ((first * bits) / 32) * groups * 4;
  const length = wordsOf(count, bits) * groups * 4;
  const zeros = toWords(await readIntegers(integers.zeros, begin, length));
  return { packed, scales, zeros: unpackZeros(zeros, count, groups, bits) };
}

function toWords(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.slice().buffer);
}

/** Scales belong to the last rows: of fused q, k and v they are those of v. */
function rowScale(smoothing: Smoothing | undefined, row: number, rows: number): number {
  const scales = smoothing?.rows;
  return scales?.[row - (rows - scales.length)] ?? 1;
}

/**
 * Compares a tensor that was not quantised: the same bytes, or `(W + offset) · columns / rows` where
 * AWQ scaled it.
 *
 * @returns whether it was scaled
 * @throws WeldlineError `convert.check-failed`
 */
export async function compareTensor(
  name: string,
  merged: CheckpointTensor,
  found: CheckpointTensor,
  smoothing: Smoothing | undefined,
  readMerged: ReadPart,
  readIntegers: ReadPart,
): Promise<boolean> {
  if (found.dtype !== merged.dtype || found.shape.join() !== merged.shape.join()) {
    throw checkFailed(`${name} has another dtype or shape than in the merged checkpoint`);
  }
  const columns = merged.shape.at(-1) ?? 1;
  const rows = merged.shape.length === 2 ? (merged.shape[0] ?? 1) : 1;
  const rowBytes = merged.byteLength / rows;
  const rowsMax = Math.max(1, Math.floor(ELEMENTS_MAX / columns));
  for (let first = 0; first < rows; first += rowsMax) {
    const length = Math.min(rowsMax, rows - first) * rowBytes;
    const [one, other] = await Promise.all([
      readMerged(merged, first * rowBytes, length),
      readIntegers(found, first * rowBytes, length),
    ]);
    if (smoothing === undefined) {
      if (Buffer.compare(one, other) !== 0) {
        throw checkFailed(`${name} was not to be changed, and has other values`);
      }
    } else {
      if (!isMergeDtype(merged.dtype)) throw checkFailed(`${name} is ${merged.dtype}`);
      const [from, to] = [decode(one, merged.dtype), decode(other, merged.dtype)];
      compareScaled(name, from, to, merged.shape, first, smoothing);
    }
  }
  return smoothing !== undefined;
}

function compareScaled(
  name: string,
  from: Float64Array,
  to: Float64Array,
  shape: readonly number[],
  first: number,
  smoothing: Smoothing,
): void {
  const columns = shape.at(-1) ?? 1;
  const { offset } = smoothing;
  for (let i = 0; i < from.length; i++) {
    const column = i % columns;
    const [row, rows] =
      shape.length === 2 ? [first + Math.floor(i / columns), shape[0] ?? 1] : [column, columns];
    const ofColumn = shape.length === 2 ? (smoothing.columns?.[column] ?? 1) : 1;
    const expected = ((from[i]! + offset) * ofColumn) / rowScale(smoothing, row, rows);
    const distance = Math.abs(to[i]! + offset - expected);
    if (distance <= SMOOTHED_ROUNDING * Math.abs(expected)) continue;
    throw checkFailed(
      `${name} has ${to[i]} at ${i}, where AWQ's scales make it ${expected - offset}`,
    );
  }
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
