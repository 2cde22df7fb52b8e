/** What the 256 codes of FP8 stand for (E4M3 without infinities, `float8_e4m3fn`). */
export const FP8_VALUES: Float32Array = Float32Array.from({ length: 256 }, (_, code) => {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 15;
  const mantissa = code & 7;
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -9;
  return sign * (8 + mantissa) * 2 ** (exponent - 10);
});

/** What the 16 codes of MXFP4 stand for (E2M1, OCP Microscaling Formats 1.0). */
export const FP4_VALUES: readonly number[] = [
  ...[0, 0.5, 1, 1.5, 2, 3, 4, 6],
  ...[-0, -0.5, -1, -1.5, -2, -3, -4, -6],
];

/** MXFP4: values that share a scale, two to a byte. */
export const MXFP4_BLOCK = 32;
export const MXFP4_BLOCK_BYTES = 16;

/** The power of two that a byte of E8M0 stands for; 255 gives no finite value. */
export function powerOf(scale: number): number {
  return Math.fround(2 ** (scale - 127));
}
