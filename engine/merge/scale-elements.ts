import { decodeElements, type FloatDtype } from '../../kernels/index.ts';

/**
 * Elements times numbers, rounded to float32 as PEFT rounds scaled factors.
 *
 * @param bytes of elements in as many stretches of one length as there are numbers
 */
export function scaleElements(
  bytes: Uint8Array,
  dtype: FloatDtype,
  numbers: Float64Array,
): Float32Array {
  const values = decodeElements(bytes, dtype);
  const scaled = new Float32Array(values.length);
  const length = values.length / numbers.length;
  for (const [index, number] of numbers.entries()) {
    const end = (index + 1) * length;
    for (let i = index * length; i < end; i++) scaled[i] = number * values[i]!;
  }
  return scaled;
}
