import { assert } from '../errors.ts';

/**
 * Rows of a weight in the `pack-quantized` format of compressed-tensors (its
 * `PackedQuantizationCompressor`): integers of 4 or 8 bits, offset to be unsigned, along the row
 * from the lowest bits of each word up. Every `groupSize` columns share a scale and a zero point.
 */
export interface IntegerRows {
  readonly bits: 4 | 8;
  readonly columns: number;
  readonly groupSize: number;
  /** [rows, ⌈columns · bits / 32⌉] */
  readonly packed: Uint32Array;
  /** [rows, groups] */
  readonly scales: Float64Array;
  /** [rows, groups], signed; absent where all are 0. */
  readonly zeros?: Int8Array | undefined;
}

/**
 * The values of rows, `(code - zero) · scale`, exactly: compressed-tensors rounds each once, to the
 * dtype of the scale.
 *
 * @returns [rows, columns]
 */
export function dequantizeRows(rows: IntegerRows): Float64Array {
  const { bits, columns, groupSize, packed, scales, zeros } = rows;
  const groups = columns / groupSize;
  const count = scales.length / groups;
  const words = wordsOf(columns, bits);
  assert(packed.length === count * words, 'packed weights and scales have different rows');
  const perWordShift = bits === 4 ? 3 : 2;
  const inWord = 2 ** perWordShift - 1;
  const mask = 2 ** bits - 1;
  const offset = 2 ** (bits - 1);
  const values = new Float64Array(count * columns);
  let at = 0;
  for (let row = 0; row < count; row++) {
    for (let group = 0; group < groups; group++) {
      const place = row * groups + group;
      const scale = scales[place]!;
      const zero = offset + (zeros?.[place] ?? 0);
      const end = (group + 1) * groupSize;
      for (let column = group * groupSize; column < end; column++) {
        const word = packed[row * words + (column >>> perWordShift)]!;
        values[at++] = (((word >>> ((column & inWord) * bits)) & mask) - zero) * scale;
      }
    }
  }
  return values;
}

/**
 * Zero points are packed along the rows, so that a word has those of neighbouring rows.
 *
 * @param packed [⌈rows · bits / 32⌉, groups]
 * @returns [rows, groups]
 */
export function unpackZeros(
  packed: Uint32Array,
  rows: number,
  groups: number,
  bits: 4 | 8,
): Int8Array {
  const perWord = 32 / bits;
  const zeros = new Int8Array(rows * groups);
  for (let row = 0; row < rows; row++) {
    const shift = (row % perWord) * bits;
    for (let group = 0; group < groups; group++) {
      const word = packed[Math.floor(row / perWord) * groups + group]!;
      zeros[row * groups + group] = ((word >>> shift) & (2 ** bits - 1)) - 2 ** (bits - 1);
    }
  }
  return zeros;
}

/** Words of 32 bits that a row of packed integers takes. */
export function wordsOf(count: number, bits: 4 | 8): number {
  return Math.ceil((count * bits) / 32);
}
