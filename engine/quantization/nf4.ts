import { CODE_TABLES } from './code-tables.ts';

/** Values that share a maximum: what QLoRA uses, and transformers has no other. */
export const NF4_BLOCK = 64;

const { fround } = Math;

/** The smallest maximum that is divided by. */
const MAXIMUM_MIN = fround(1e-38);

/** Between neighbouring codes: what lies on one belongs to the lower code. */
const BOUNDS = Float32Array.from({ length: 15 }, (_, code) => {
  const [low, high] = [CODE_TABLES.nf4[code]!, CODE_TABLES.nf4[code + 1]!];
  return fround(low + high) / 2;
});

/** The maximum of a block's absolute values; NaN if one of them is. */
export function blockMaximum(values: Float32Array): number {
  let maximum = 0;
  for (const value of values) maximum = Math.max(maximum, Math.abs(value));
  return maximum;
}

/**
 * The codes of a block as bitsandbytes' `quantize_4bit` finds them on a CPU: a full block is
 * multiplied by the reciprocal of its maximum, what is left over at a weight's end is divided by it.
 * @param codes has the length of the block
 */
export function quantizeBlock(values: Float32Array, maximum: number, codes: Uint8Array): void {
  const divisor = Math.max(maximum, MAXIMUM_MIN);
  const factor = fround(1 / divisor);
  const isFull = values.length === NF4_BLOCK;
  for (let i = 0; i < values.length; i++) {
    // Beyond the ends lies no bound, so nothing needs to be clamped.
    codes[i] = codeOf(fround(isFull ? values[i]! * factor : values[i]! / divisor));
  }
}

/** The code of a value between -1 and 1: how many bounds lie below it. */
function codeOf(scaled: number): number {
  let code = scaled > BOUNDS[7]! ? 8 : 0;
  if (scaled > BOUNDS[code + 3]!) code += 4;
  if (scaled > BOUNDS[code + 1]!) code += 2;
  if (scaled > BOUNDS[code]!) code += 1;
  return code;
}
