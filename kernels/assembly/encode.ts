/** From f32 to stored elements: rounded to nearest even, and counted where not finite. */
import {
  ABS_MASK,
  F16_MIN_NORMAL,
  F16_ROUNDING_SHIFT,
  F16_UNBIAS,
  F32_EXPONENT,
  nonFiniteFrom,
  storeScalar,
} from './dtypes';

const LANES: i32 = 8;

/* In memory for the reason given in `decode.ts`. */
const MAGNITUDE = memory.data<i32>([ABS_MASK, ABS_MASK, ABS_MASK, ABS_MASK], 16);
const RAW_SIGN = memory.data<u32>([0x80008000, 0x80008000, 0x80008000, 0x80008000], 16);
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
 * Rounds `count` f32 in a row and stores them. The vectors round finite numbers only; if one was
 * not finite after all, which is rare, all of them are rounded again, one by one.
 *
 * @returns how many stored results are Inf or NaN
 */
export function encodeElements<T>(source: usize, target: usize, count: i32): i32 {
  const vectors = count / LANES;
  let largest: v128;
  if (isFloat<T>()) largest = encodeF32(source, target, vectors);
  else if (isSigned<T>()) largest = encodeF16(source, target, vectors);
  else largest = encodeBF16(source, target, vectors);
  const isFinite = !v128.any_true(i32x4.gt_s(largest, i32x4.splat(nonFiniteFrom<T>() - 1)));
  let nonFinite = 0;
  for (let i = isFinite ? vectors * LANES : 0; i < count; i++) {
    const value = load<f32>(source + (<usize>i << 2));
    nonFinite += storeScalar<T>(target + <usize>i * sizeof<T>(), value);
  }
  return nonFinite;
}

/** @returns the largest magnitude in each lane, as f32 bits; so do the next two */
function encodeF32(source: usize, target: usize, vectors: i32): v128 {
  const magnitude = v128.load(MAGNITUDE);
  let largest = i32x4.splat(0);
  for (const end = source + <usize>vectors * LANES * 4; source < end; source += LANES * 4) {
    const low = v128.load(source), high = v128.load(source, 16);
    largest = i32x4.max_s(largest, v128.and(low, magnitude));
    largest = i32x4.max_s(largest, v128.and(high, magnitude));
    v128.store(target, low);
    v128.store(target, high, 16);
    target += LANES * 4;
  }
  return largest;
}

function encodeBF16(source: usize, target: usize, vectors: i32): v128 {
  const magnitude = v128.load(MAGNITUDE);
  const one = v128.load(ONE), belowHalf = v128.load(BELOW_HALF);
  let largest = i32x4.splat(0);
  for (const end = source + <usize>vectors * LANES * 4; source < end; source += LANES * 4) {
    const low = v128.load(source), high = v128.load(source, 16);
    largest = i32x4.max_s(largest, v128.and(low, magnitude));
    largest = i32x4.max_s(largest, v128.and(high, magnitude));
    const lowTie = v128.and(i32x4.shr_u(low, 16), one);
    const highTie = v128.and(i32x4.shr_u(high, 16), one);
    const lowRounded = i32x4.add(i32x4.add(low, belowHalf), lowTie);
    const highRounded = i32x4.add(i32x4.add(high, belowHalf), highTie);
    v128.store(
      target,
      i16x8.narrow_i32x4_u(i32x4.shr_u(lowRounded, 16), i32x4.shr_u(highRounded, 16)),
    );
    target += LANES * 2;
  }
  return largest;
}

function encodeF16(source: usize, target: usize, vectors: i32): v128 {
  const magnitude = v128.load(MAGNITUDE), sign = v128.load(RAW_SIGN);
  const exponent = v128.load(EXPONENT), minNormal = v128.load(MIN_NORMAL);
  const roundingShift = v128.load(ROUNDING_SHIFT);
  let largest = i32x4.splat(0);
  for (const end = source + <usize>vectors * LANES * 4; source < end; source += LANES * 4) {
    const low = v128.load(source), high = v128.load(source, 16);
    const lowMagnitude = v128.and(low, magnitude), highMagnitude = v128.and(high, magnitude);
    largest = i32x4.max_s(i32x4.max_s(largest, lowMagnitude), highMagnitude);
    const lowExponent = i32x4.max_s(v128.and(low, exponent), minNormal);
    const highExponent = i32x4.max_s(v128.and(high, exponent), minNormal);
    // The lower half of the shift needs no subtracting: all of it is meant to stay.
    const lowSum = f32x4.add(lowMagnitude, i32x4.add(lowExponent, roundingShift));
    const highSum = f32x4.add(highMagnitude, i32x4.add(highExponent, roundingShift));
    const magnitudes = v128.shuffle<i16>(
      i32x4.add(lowSum, i32x4.shr_u(lowExponent, 13)),
      i32x4.add(highSum, i32x4.shr_u(highExponent, 13)),
      0, 2, 4, 6, 8, 10, 12, 14,
    );
    // Saturation keeps the sign of each lane, which is all that is wanted of it.
    const signs = v128.and(i16x8.narrow_i32x4_s(low, high), sign);
    v128.store(target, v128.or(magnitudes, signs));
    target += LANES * 2;
  }
  return largest;
}
