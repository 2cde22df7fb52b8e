/**
 * How ggml stores the weights of each type: blocks of so many elements in so many bytes, scaled by
 * numbers in them (ggml-common.h). What the other bits mean does not matter here: they are integers,
 * so a block is finite if its scales are.
 */
export interface BlockFormat {
  readonly name: string;
  readonly elements: number;
  readonly bytes: number;
  /** Position in `bytes` of the first block that holds an infinity or a NaN, or -1. */
  readonly findNonFinite: (bytes: Uint8Array) => number;
}

type Row = readonly [name: string, elements: number, bytes: number, halves: readonly number[]];

/** By number in `ggml_type`: the types whose scales are float16, at these offsets in the block. */
const HALF_SCALED: Readonly<Record<number, Row>> = {
  1: ['F16', 1, 2, [0]],
  2: ['Q4_0', 32, 18, [0]],
  3: ['Q4_1', 32, 20, [0, 2]],
  6: ['Q5_0', 32, 22, [0]],
  7: ['Q5_1', 32, 24, [0, 2]],
  8: ['Q8_0', 32, 34, [0]],
  10: ['Q2_K', 256, 84, [80, 82]],
  11: ['Q3_K', 256, 110, [108]],
  12: ['Q4_K', 256, 144, [0, 2]],
  13: ['Q5_K', 256, 176, [0, 2]],
  14: ['Q6_K', 256, 210, [208]],
  16: ['IQ2_XXS', 256, 66, [0]],
  17: ['IQ2_XS', 256, 74, [0]],
  18: ['IQ3_XXS', 256, 98, [0]],
  19: ['IQ1_S', 256, 50, [0]],
  20: ['IQ4_NL', 32, 18, [0]],
  21: ['IQ3_S', 256, 110, [0]],
  22: ['IQ2_S', 256, 82, [0]],
  23: ['IQ4_XS', 256, 136, [0]],
  34: ['TQ1_0', 256, 54, [52]],
  35: ['TQ2_0', 256, 66, [64]],
  41: ['Q1_0', 128, 18, [0]],
  42: ['Q2_0', 64, 18, [0]],
};

/**
 * Where a number shows that it is infinite or NaN: all bits of its exponent are set. They lie in one
 * byte, or in two.
 */
interface Exponent {
  readonly byte: number;
  readonly mask: number;
  readonly otherByte: number;
  readonly otherMask: number;
}

const halfExponent = (offset: number): Exponent => {
  return { byte: offset + 1, mask: 0x7c, otherByte: 0, otherMask: 0 };
};

/** The types that are not scaled by float16. */
const OTHERS: Readonly<Record<number, BlockFormat>> = {
  0: format('F32', 1, 4, [{ byte: 3, mask: 0x7f, otherByte: 2, otherMask: 0x80 }]),
  30: format('BF16', 1, 2, [{ byte: 1, mask: 0x7f, otherByte: 0, otherMask: 0x80 }]),
  // The scale's nibbles are the upper ones of four 16-bit words; its exponent is in the last two.
  29: format('IQ1_M', 256, 56, [{ byte: 55, mask: 0x70, otherByte: 53, otherMask: 0xc0 }]),
  // A power of two, of which the last is NaN (E8M0).
  39: format('MXFP4', 32, 17, [{ byte: 0, mask: 0xff, otherByte: 0, otherMask: 0 }]),
};

/** @returns undefined for a number that is no type of weights in this release of llama.cpp */
export function blockFormat(type: number): BlockFormat | undefined {
  const row = HALF_SCALED[type];
  if (row === undefined) return OTHERS[type];
  const [name, elements, bytes, halves] = row;
  return format(name, elements, bytes, halves.map(halfExponent));
}

function format(
  name: string,
  elements: number,
  bytes: number,
  exponents: readonly Exponent[],
): BlockFormat {
  const findNonFinite = (content: Uint8Array): number => {
    const found = exponents
      .map((exponent) => findFull(content, bytes, exponent))
      .filter((position) => position >= 0);
    return found.length === 0 ? -1 : Math.min(...found);
  };
  return { name, elements, bytes, findNonFinite };
}

/** A loop over bytes without calls: of a large model there are tens of billions. */
function findFull(
  content: Uint8Array,
  blockBytes: number,
  { byte, mask, otherByte, otherMask }: Exponent,
): number {
  const end = content.length - blockBytes;
  for (let at = 0; at <= end; at += blockBytes) {
    if ((content[at + byte]! & mask) !== mask) continue;
    if ((content[at + otherByte]! & otherMask) === otherMask) return at;
  }
  return -1;
}
