import type { BlockQuantization } from '../plan/plan.ts';

/**
 * What a 4-bit code stands for, in float32 (bitsandbytes' `get_4bit_type`). Its kernels have these
 * tables built in; the `quant_map` beside a weight is only a copy.
 */
export const CODE_TABLES: Readonly<Record<BlockQuantization['scheme'], Float32Array>> = {
  nf4: Float32Array.of(
    ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453],
    ...[-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0],
    ...[0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
    ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1],
  ),
  // Code 8 is +0 here and in bitsandbytes' own tables; some of its kernels make it -0.
  fp4: Float32Array.from(
    [0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3],
    (value) => value / 12,
  ),
};

/** bitsandbytes' 1 / 127, which LLM.int8 multiplies by in float32. */
export const INT8_FACTOR = Math.fround(7.874015718698502e-3);
