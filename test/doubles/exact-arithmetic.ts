/** Exact arithmetic on float32 numbers, in big integers: no rounding until the last step. */

/** `digits * 2^exponent`. */
export interface BinaryFraction {
  readonly digits: bigint;
  readonly exponent: number;
}

/** Exponent of the smallest float32, of which every other is a multiple. */
const F32_EXPONENT = -149;
const F32_MANTISSA_BITS = 24;

/** A finite float32 as a multiple of the smallest one. */
export function toMultiple(value: number): bigint {
  return BigInt(value * 2 ** -F32_EXPONENT);
}

/**
 * `sum + scale * Σ left[k] * right[k]`.
 * @param left and `right` as multiples of the smallest float32
 * @param scale any finite float64
 */
export function addProduct(
  sum: BinaryFraction,
  left: readonly bigint[],
  right: readonly bigint[],
  scale: number,
): BinaryFraction {
  let product = 0n;
  for (const [k, value] of left.entries()) product += value * (right[k] ?? 0n);
  let scaleDigits = scale;
  let scaleExponent = 0;
  while (!Number.isInteger(scaleDigits)) {
    scaleDigits *= 2;
    scaleExponent--;
  }
  const termExponent = 2 * F32_EXPONENT + scaleExponent;
  const exponent = Math.min(sum.exponent, termExponent);
  const digits =
    (sum.digits << BigInt(sum.exponent - exponent)) +
    ((BigInt(scaleDigits) * product) << BigInt(termExponent - exponent));
  return { digits, exponent };
}

/**
 * `weight + scale * Σ left[k] * right[k]`.
 * @param weight and the factors as multiples of the smallest float32
 */
export function mergeElement(
  weight: bigint,
  left: readonly bigint[],
  right: readonly bigint[],
  scale: number,
): BinaryFraction {
  return addProduct({ digits: weight, exponent: F32_EXPONENT }, left, right, scale);
}

/** The nearest float32, ties to even; Infinity past the range. Zero has no sign. */
export function toNearestFloat32({ digits, exponent }: BinaryFraction): number {
  const magnitude = digits < 0n ? -digits : digits;
  const length = magnitude.toString(2).length;
  const lastPlace = Math.max(length + exponent - F32_MANTISSA_BITS, F32_EXPONENT);
  const dropped = BigInt(lastPlace - exponent);
  let kept = magnitude;
  if (dropped > 0n) {
    kept = magnitude >> dropped;
    const rest = magnitude - (kept << dropped);
    const half = 1n << (dropped - 1n);
    if (rest > half || (rest === half && kept % 2n === 1n)) kept += 1n;
  } else {
    kept = magnitude << -dropped;
  }
  const value = Number(kept) * 2 ** lastPlace;
  const rounded = value >= 2 ** 128 ? Infinity : value;
  return digits < 0n ? -rounded : rounded;
}

/** `fraction - value` in float64: exact up to one rounding. @param value a finite float32 */
export function distanceFrom({ digits, exponent }: BinaryFraction, value: number): number {
  const difference = digits - (toMultiple(value) << BigInt(F32_EXPONENT - exponent));
  // In two steps, for an exponent below float64's range.
  return Number(difference) * 2 ** F32_EXPONENT * 2 ** (exponent - F32_EXPONENT);
}
