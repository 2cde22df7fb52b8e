/** Conversions between the element types and f32, four or eight lanes at a time. */
import {
  ABS_MASK,
  F16_MIN_NORMAL,
  F16_REBIAS,
  F16_ROUNDING_SHIFT,
  F16_UNBIAS,
  F32_EXPONENT,
  nonFiniteFrom,
} from './dtypes';

/**
 * Constants live in memory: V8 builds a literal vector from two 64-bit integers wherever it is
 * used, which cost a third of the speed at small ranks.
 */
const MAGNITUDE = memory.data<i32>([ABS_MASK, ABS_MASK, ABS_MASK, ABS_MASK], 16);
const RAW_MAGNITUDE = memory.data<i32>([0x7fff7fff, 0x7fff7fff, 0x7fff7fff, 0x7fff7fff], 16);
const RAW_FINITE_MAX = memory.data<i32>([0x7bff7bff, 0x7bff7bff, 0x7bff7bff, 0x7bff7bff], 16);
const RAW_SIGN = memory.data<u32>([0x80008000, 0x80008000, 0x80008000, 0x80008000], 16);
/** An f16 sign-extended and shifted left by 13, without the surplus copies of its sign. */
const WIDENED = memory.data<u32>([0x8fffe000, 0x8fffe000, 0x8fffe000, 0x8fffe000], 16);
const REBIAS = memory.data<f32>([F16_REBIAS, F16_REBIAS, F16_REBIAS, F16_REBIAS], 16);
const EXPONENT = memory.data<i32>([F32_EXPONENT, F32_EXPONENT, F32_EXPONENT, F32_EXPONENT], 16);
const MIN_NORMAL = memory.data<i32>(
  [F16_MIN_NORMAL, F16_MIN_NORMAL, F16_MIN_NORMAL, F16_MIN_NORMAL],
  16,
);
const ONE = memory.data<i32>([1, 1, 1, 1], 16);
const BELOW_HALF = memory.data<i32>([0x7fff, 0x7fff, 0x7fff, 0x7fff], 16);

/**
 * `F16_ROUNDING_SHIFT`, with -F16_UNBIAS modulo 2^16 in the mantissa: the sum carries it along into
 * the bits that are kept. It is even, so ties still go the right way.
 */
const SHIFT: i32 = F16_ROUNDING_SHIFT + ((0x20000 - F16_UNBIAS) & 0xffff);
const ROUNDING_SHIFT = memory.data<i32>([SHIFT, SHIFT, SHIFT, SHIFT], 16);

/**
 * Four elements as f32. An f16 Inf or NaN comes out as a finite number of 65536 or more: callers
 * look for those with `rawNonFinite` and leave them to the scalar path.
 */
// @ts-ignore: decorator
@inline
export function loadFour<T>(source: usize): v128 {
  if (isFloat<T>()) return v128.load(source);
  if (!isSigned<T>()) return i32x4.shl(v128.load16x4_u(source), 16);
  const bits = v128.and(i32x4.shl(v128.load16x4_s(source), 13), v128.load(WIDENED));
  return f32x4.mul(bits, v128.load(REBIAS));
}

/** The larger magnitude per lane, as f32 bits. `magnitudes` starts from zero. */
// @ts-ignore: decorator
@inline
export function maxMagnitude(magnitudes: v128, values: v128): v128 {
  return i32x4.max_s(magnitudes, v128.and(values, v128.load(MAGNITUDE)));
}

/** All ones in the lanes whose value would not be finite in `T`. */
// @ts-ignore: decorator
@inline
export function beyondRange<T>(magnitudes: v128): v128 {
  return i32x4.gt_s(magnitudes, i32x4.splat(nonFiniteFrom<T>() - 1));
}

/** As `maxMagnitude`, over the raw bits of eight f16 elements; nothing to do for other types. */
// @ts-ignore: decorator
@inline
export function maxRaw<T>(magnitudes: v128, source: usize): v128 {
  if (isFloat<T>() || !isSigned<T>()) return magnitudes;
  return i16x8.max_s(magnitudes, v128.and(v128.load(source), v128.load(RAW_MAGNITUDE)));
}

/** All ones in the lanes in which `maxRaw` saw an f16 Inf or NaN. */
// @ts-ignore: decorator
@inline
export function rawNonFinite<T>(magnitudes: v128): v128 {
  if (isFloat<T>() || !isSigned<T>()) return i32x4.splat(0);
  return i16x8.gt_s(magnitudes, v128.load(RAW_FINITE_MAX));
}

/** Rounds eight f32 to nearest even and stores them; all must be finite in `T`. */
// @ts-ignore: decorator
@inline
export function storeEight<T>(target: usize, low: v128, high: v128): void {
  if (isFloat<T>()) {
    v128.store(target, low);
    v128.store(target, high, 16);
  } else if (isSigned<T>()) {
    const magnitudes = evenHalves(f16Rounded(low), f16Rounded(high));
    const signs = v128.and(oddHalves(low, high), v128.load(RAW_SIGN));
    v128.store(target, v128.or(magnitudes, signs));
  } else {
    v128.store(target, oddHalves(bf16Rounded(low), bf16Rounded(high)));
  }
}

/** The result is in the upper half of each lane. */
// @ts-ignore: decorator
@inline
function bf16Rounded(value: v128): v128 {
  const tie = v128.and(i32x4.shr_u(value, 16), v128.load(ONE));
  return i32x4.add(i32x4.add(value, v128.load(BELOW_HALF)), tie);
}

/** The magnitude is in the lower half of each lane; see `f16Magnitude` for the scalar form. */
// @ts-ignore: decorator
@inline
function f16Rounded(value: v128): v128 {
  const exponent = i32x4.max_s(v128.and(value, v128.load(EXPONENT)), v128.load(MIN_NORMAL));
  const shift = i32x4.add(exponent, v128.load(ROUNDING_SHIFT));
  // The lower half of `shift` needs no subtracting: all of it is meant to stay.
  const sum = f32x4.add(v128.and(value, v128.load(MAGNITUDE)), shift);
  return i32x4.add(sum, i32x4.shr_u(exponent, 13));
}

// @ts-ignore: decorator
@inline
function evenHalves(low: v128, high: v128): v128 {
  return v128.shuffle<i16>(low, high, 0, 2, 4, 6, 8, 10, 12, 14);
}

// @ts-ignore: decorator
@inline
function oddHalves(low: v128, high: v128): v128 {
  return v128.shuffle<i16>(low, high, 1, 3, 5, 7, 9, 11, 13, 15);
}
