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

const HALF_EXPONENT = 0x7c;

/** The types that are not scaled by float16. */
const OTHERS: Readonly<Record<number, BlockFormat>> = {
  0: every('F32', 1, 4, (b, at) => (b[at + 3]! & 0x7f) === 0x7f && (b[at + 2]! & 0x80) !== 0),
  30: every('BF16', 1, 2, (b, at) => (b[at + 1]! & 0x7f) === 0x7f && (b[at]! & 0x80) !== 0),
  // The scale's nibbles are the upper ones of four 16-bit words; its exponent is in the last two.
  29: every('IQ1_M', 256, 56, (b, at) => {
    return (b[at + 55]! & 0x70) === 0x70 && (b[at + 53]! & 0xc0) === 0xc0;
  }),
  // A power of two, of which the last is NaN (E8M0).
  39: every('MXFP4', 32, 17, (b, at) => b[at] === 0xff),
};

/** @returns undefined for a number that is no type of weights in this release of llama.cpp */
export function blockFormat(type: number): BlockFormat | undefined {
  const row = HALF_SCALED[type];
  if (row === undefined) return OTHERS[type];
  const [name, elements, bytes, halves] = row;
  return every(name, elements, bytes, (b, at) =>
    halves.some((half) => (b[at + half + 1]! & HALF_EXPONENT) === HALF_EXPONENT),
  );
}

function every(
  name: string,
  elements: number,
  bytes: number,
  isNonFinite: (bytes: Uint8Array, at: number) => boolean,
): BlockFormat {
  const findNonFinite = (content: Uint8Array): number => {
    for (let at = 0; at + bytes <= content.length; at += bytes) {
      if (isNonFinite(content, at)) return at;
    }
    return -1;
  };
  return { name, elements, bytes, findNonFinite };
}
