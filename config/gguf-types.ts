/** The file types of llama.cpp's quantizer, as its own table has them (llama.h, `llama_ftype`). */
export interface GgufType {
  readonly name: string;
  /** Number of `llama_ftype` in llama.h. */
  readonly ftype: number;
  /** `lossless` is 16 bits and more; `severe` is known to erase what a fine-tune taught. */
  readonly loss: 'lossless' | 'small' | 'severe';
  /** llama.cpp refuses to make it without an importance matrix. */
  readonly needsImatrix: boolean;
}

type Row = readonly [name: string, ftype: number, loss: GgufType['loss'], imatrix?: 'imatrix'];

/** From the smallest loss to the largest. Aliases (`Q4_K`) are left out: one name for one file. */
const ROWS = [
  ['F32', 0, 'lossless'],
  ['BF16', 32, 'lossless'],
  ['F16', 1, 'lossless'],
  ['Q8_0', 7, 'small'],
  ['Q6_K', 18, 'small'],
  ['Q5_K_M', 17, 'small'],
  ['Q5_K_S', 16, 'small'],
  ['Q5_1', 9, 'small'],
  ['Q5_0', 8, 'small'],
  ['Q4_K_M', 15, 'small'],
  ['Q4_K_S', 14, 'small'],
  ['Q4_1', 3, 'small'],
  ['Q4_0', 2, 'small'],
  ['IQ4_NL', 25, 'small'],
  ['IQ4_XS', 30, 'small'],
  ['MXFP4_MOE', 38, 'small'],
  ['Q3_K_L', 13, 'severe'],
  ['Q3_K_M', 12, 'severe'],
  ['Q3_K_S', 11, 'severe'],
  ['IQ3_M', 27, 'severe'],
  ['IQ3_S', 26, 'severe'],
  ['IQ3_XS', 22, 'severe', 'imatrix'],
  ['IQ3_XXS', 23, 'severe', 'imatrix'],
  ['Q2_K', 10, 'severe'],
  ['Q2_K_S', 21, 'severe', 'imatrix'],
  ['IQ2_M', 29, 'severe', 'imatrix'],
  ['IQ2_S', 28, 'severe', 'imatrix'],
  ['IQ2_XS', 20, 'severe', 'imatrix'],
  ['IQ2_XXS', 19, 'severe', 'imatrix'],
  ['Q2_0', 41, 'severe'],
  ['IQ1_M', 31, 'severe', 'imatrix'],
  ['IQ1_S', 24, 'severe', 'imatrix'],
  ['Q1_0', 40, 'severe'],
  ['TQ2_0', 37, 'severe'],
  ['TQ1_0', 36, 'severe'],
] as const satisfies readonly Row[];

export type GgufTypeName = (typeof ROWS)[number][0];

export const GGUF_TYPE_NAMES: readonly GgufTypeName[] = ROWS.map(([name]) => name);

/** @throws RangeError for a name that is not in the table */
export function ggufType(name: string): GgufType {
  const row: Row | undefined = ROWS.find((each) => each[0] === name);
  if (row === undefined) throw new RangeError(`${name} is no GGUF type`);
  const [, ftype, loss, imatrix] = row;
  return { name, ftype, loss, needsImatrix: imatrix !== undefined };
}
