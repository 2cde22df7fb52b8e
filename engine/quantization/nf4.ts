import { CODE_TABLES } from './code-tables.ts';

/** Values that share a maximum: what QLoRA uses, and transformers has no other. */
export const NF4_BLOCK = 64;

const { fround } = Math;

/** The smallest maximum that is divided by. */
const MAXIMUM_MIN = fround(1e-38);

/** Between neighbouring codes: what lies on one belongs to the lower code. */
const BOUNDS = Float32Array.from({ length: 16 }, (_, code) => {
  const [low, high] = [
    CODE_TABLES.nf4[code]!,
    CODE_TABLES.nf4[code + 1] ?? Number.POSITIVE_INFINITY,
  ];
  return fround(low + high) / 2;
});

/** Bins from -1 to 1, so narrow that none has two bounds in it. */
const BINS = 256;

/** The lowest code of each bin: a guess that one comparison puts right, without a search. */
const LOWEST_CODES = Uint8Array.from({ length: BINS + 1 }, (_, bin) =>
  BOUNDS.findIndex((bound) => bound >= (2 * bin) / BINS - 1),
);

/** One float32 and its bits. */
const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/**
 * The codes of a block as bitsandbytes' `quantize_4bit` finds them on a CPU: a full block is
 * multiplied by the reciprocal of its maximum, what is left over at a weight's end is divided by it.
 *
 * @param begin the first of the block's values; there may be fewer than 64 of them
 * @param codes of the block, from its first element on
 * @returns the maximum of the absolute values; not finite if one of them is not
 */
export function quantizeBlock(values: Float32Array, begin: number, codes: Uint8Array): number {
  const end = Math.min(values.length, begin + NF4_BLOCK);
  const maximum = largestOf(values, begin, end);
  const divisor = Math.max(maximum, MAXIMUM_MIN);
  const factor = fround(1 / divisor);
  const isFull = end - begin === NF4_BLOCK;
  for (let i = begin; i < end; i++) {
    const scaled = fround(isFull ? values[i]! * factor : values[i]! / divisor);
    // Rounding may bring it a little beyond the ends, but not out of their bins.
    const code = LOWEST_CODES[((scaled + 1) * (BINS / 2)) | 0]!;
    codes[i - begin] = scaled > BOUNDS[code]! ? code + 1 : code;
  }
  return maximum;
}

/** By their bits, which have the order of the absolute values, NaN above all. */
function largestOf(values: Float32Array, begin: number, end: number): number {
  let largest = 0;
  for (let i = begin; i < end; i++) {
    float[0] = values[i]!;
    const magnitude = bits[0]! & 0x7fffffff;
    if (magnitude > largest) largest = magnitude;
  }
  bits[0] = largest;
  return float[0]!;
}
