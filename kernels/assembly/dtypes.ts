/**
 * Conversions between the three element types and f32, one element at a time.
 *
 * An element type is a type argument. AssemblyScript folds `isFloat<T>()` and `isSigned<T>()` at
 * compile time, so three distinct carriers are all that is needed to specialise a function.
 */
export type BF16 = u16;
export type F16 = i16;
export type F32 = f32;

/** Codes of the types at the boundary; `kernels/dtypes.ts` holds the same numbers. */
export const CODE_BF16: i32 = 0;
export const CODE_F16: i32 = 1;
export const CODE_F32: i32 = 2;

export const ABS_MASK: i32 = 0x7fffffff;
export const F32_INF: i32 = 0x7f800000;
export const F32_EXPONENT: i32 = 0x7f800000;

/** 2^112 = 2^(127 - 15): what the difference of the exponent biases is worth. */
export const F16_REBIAS: f32 = 5192296858534827628530496329220096.0;
/** Bits of the first f32 past f16's range; an f16 exponent of 31 rebiases to this or more. */
export const F16_RANGE_END: i32 = 0x47800000;
/** Exponent bits of 2^-14, the smallest normal f16. */
export const F16_MIN_NORMAL: i32 = 0x38800000;
/** Adding 2^(e + 13) to a number of exponent e makes its f32 unit in the last place f16's. */
export const F16_ROUNDING_SHIFT: i32 = 13 << 23;
/** (127 - 15 + 1) << 10: the bias difference, and the implicit bit that the sum carries. */
export const F16_UNBIAS: i32 = 113 << 10;

/** The magnitude, as f32 bits, from which a number becomes Inf (or is NaN) in `T`. */
// @ts-ignore: decorator
@inline
export function nonFiniteFrom<T>(): i32 {
  if (isFloat<T>()) return F32_INF;
  return isSigned<T>() ? 0x477ff000 : 0x7f7f8000;
}

// @ts-ignore: decorator
@inline
export function loadScalar<T>(source: usize): f32 {
  if (isFloat<T>()) return load<f32>(source);
  const bits = <i32>load<u16>(source);
  if (!isSigned<T>()) return reinterpret<f32>(bits << 16);
  const sign = (bits & 0x8000) << 16;
  let magnitude = reinterpret<i32>(reinterpret<f32>((bits & 0x7fff) << 13) * F16_REBIAS);
  if (magnitude >= F16_RANGE_END) magnitude |= F32_INF;
  return reinterpret<f32>(magnitude | sign);
}

/**
 * Rounds to nearest even and stores. Every NaN is stored as the one positive quiet NaN without
 * payload, because which payload arithmetic yields differs between processors.
 *
 * @returns 1 if what was stored is Inf or NaN, else 0
 */
export function storeScalar<T>(target: usize, value: f32): i32 {
  const bits = reinterpret<i32>(value);
  const magnitude = bits & ABS_MASK;
  const isNaN = magnitude > F32_INF;
  if (isFloat<T>()) {
    store<i32>(target, isNaN ? 0x7fc00000 : bits);
  } else if (isSigned<T>()) {
    store<u16>(target, isNaN ? 0x7e00 : ((bits >>> 16) & 0x8000) | f16Magnitude(magnitude));
  } else {
    store<u16>(target, isNaN ? 0x7fc0 : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
  }
  return i32(magnitude >= nonFiniteFrom<T>());
}

function f16Magnitude(magnitude: i32): i32 {
  if (magnitude >= nonFiniteFrom<F16>()) return 0x7c00;
  const exponent = max(magnitude & F32_EXPONENT, F16_MIN_NORMAL);
  const shift = exponent + F16_ROUNDING_SHIFT;
  const sum = reinterpret<i32>(reinterpret<f32>(magnitude) + reinterpret<f32>(shift));
  return sum - shift + (exponent >> 13) - F16_UNBIAS;
}
