/** From the f32 of a strip to stored elements: rounded to nearest even, counted if not finite. */
import { ABS_MASK, F16_UNBIAS, nonFiniteFrom, storeScalar } from './dtypes';
import { slotOf } from './tile';

const LANES: i32 = 8;

/*
 * Constants are in memory for the reason given in `decode.ts`. All but the first are pairs of
 * 16-bit numbers: eight results are rounded at once, from the upper halves of their f32 and, where
 * needed, the lower ones. Loads at an offset of two bytes bring both where `blend` expects them.
 */
const MAGNITUDE = memory.data<i32>([ABS_MASK, ABS_MASK, ABS_MASK, ABS_MASK], 16);
const ONE = memory.data<i32>([0x10001, 0x10001, 0x10001, 0x10001], 16);
/** In an f32 of magnitude 2 and above, of which there are few; and in none below. */
const LARGE = memory.data<i32>([0x40004000, 0x40004000, 0x40004000, 0x40004000], 16);
const SIGN = memory.data<u32>([0x80008000, 0x80008000, 0x80008000, 0x80008000], 16);
const UPPER = memory.data<u32>([0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000], 16);
const EXPONENT = memory.data<i32>([0x7f807f80, 0x7f807f80, 0x7f807f80, 0x7f807f80], 16);
/** Exponent of 2^-14, the smallest normal f16. */
const MIN_NORMAL = memory.data<i32>([0x38803880, 0x38803880, 0x38803880, 0x38803880], 16);
/** Exponent of 2^14, above which a number may round to Inf. */
const MAX_SAFE = memory.data<i32>([0x46804680, 0x46804680, 0x46804680, 0x46804680], 16);
/** `F16_ROUNDING_SHIFT` in the upper half of an f32. */
const SHIFT = memory.data<i32>([0x6800680, 0x6800680, 0x6800680, 0x6800680], 16);
/** -F16_UNBIAS modulo 2^16. */
const U: i32 = ((0x20000 - F16_UNBIAS) & 0xffff) * 0x10001;
const UNBIAS = memory.data<i32>([U, U, U, U], 16);

/**
 * Rounds `count` f32 of a strip and stores them in a row. The vectors round finite numbers only; if
 * one was not finite after all, which is rare, all of them are rounded again, one by one.
 *
 * @returns how many stored results are Inf or NaN
 */
export function encodeElements<T>(source: usize, target: usize, count: i32): i32 {
  const vectors = count / LANES;
  let isDone: bool;
  if (isFloat<T>()) isDone = encodeF32(source, target, vectors);
  else if (isSigned<T>()) isDone = encodeF16(source, target, vectors);
  else isDone = encodeBF16(source, target, vectors);
  isDone = isDone || isFinite<T>(source, vectors);
  let nonFinite = 0;
  for (let i = isDone ? vectors * LANES : 0; i < count; i++) {
    const value = load<f32>(source + (<usize>slotOf(i) << 2));
    nonFinite += storeScalar<T>(target + <usize>i * sizeof<T>(), value);
  }
  return nonFinite;
}

/** @returns whether all results are certainly finite; so do the next two */
function encodeF32(source: usize, target: usize, vectors: i32): bool {
  for (const end = source + <usize>vectors * LANES * 4; source < end; source += LANES * 4) {
    const even = v128.load(source), odd = v128.load(source, 16);
    v128.store(target, v128.shuffle<i32>(even, odd, 0, 4, 1, 5));
    v128.store(target, v128.shuffle<i32>(even, odd, 2, 6, 3, 7), 16);
    target += LANES * 4;
  }
  return false;
}

function encodeBF16(source: usize, target: usize, vectors: i32): bool {
  const one = v128.load(ONE);
  let seen = i32x4.splat(0);
  for (const end = source + <usize>vectors * LANES * 4; source < end; source += LANES * 4) {
    const upper = blend(v128.load(source, 2), v128.load(source, 16));
    const lower = blend(v128.load(source), v128.load(source, 14));
    seen = v128.or(seen, upper);
    // Up from above one half; and from one half if the upper half is odd.
    const rest = i16x8.sub_sat_u(lower, v128.andnot(one, upper));
    v128.store(target, i16x8.add(upper, i16x8.shr_u(rest, 15)));
    target += LANES * 2;
  }
  return !v128.any_true(v128.and(seen, v128.load(LARGE)));
}

/** `f16Magnitude` in `dtypes.ts` is the scalar form, for numbers without a sign. */
function encodeF16(source: usize, target: usize, vectors: i32): bool {
  const exponentMask = v128.load(EXPONENT), minNormal = v128.load(MIN_NORMAL);
  const signMask = v128.load(SIGN), upperMask = v128.load(UPPER);
  const shift = v128.load(SHIFT), unbias = v128.load(UNBIAS);
  let largest = i16x8.splat(0);
  for (const end = source + <usize>vectors * LANES * 4; source < end; source += LANES * 4) {
    const odd = v128.load(source, 16);
    const upper = blend(v128.load(source, 2), odd);
    const exponent = i16x8.max_s(v128.and(upper, exponentMask), minNormal);
    largest = i16x8.max_s(largest, exponent);
    const sign = v128.and(upper, signMask);
    const shifted = v128.or(i16x8.add(exponent, shift), sign);
    const evenSum = f32x4.add(v128.load(source), i32x4.shl(shifted, 16));
    const oddSum = f32x4.add(odd, v128.and(shifted, upperMask));
    const mantissa = blend(evenSum, i32x4.shl(oddSum, 16));
    const magnitude = i16x8.add(i16x8.add(mantissa, i16x8.shl(exponent, 3)), unbias);
    v128.store(target, v128.or(magnitude, sign));
    target += LANES * 2;
  }
  return !v128.any_true(i16x8.gt_s(largest, v128.load(MAX_SAFE)));
}

/** The lower halves of `even` and the upper halves of `odd`. */
// @ts-ignore: decorator
@inline
function blend(even: v128, odd: v128): v128 {
  return v128.shuffle<i16>(even, odd, 0, 9, 2, 11, 4, 13, 6, 15);
}

function isFinite<T>(source: usize, vectors: i32): bool {
  const magnitude = v128.load(MAGNITUDE);
  let largest = i32x4.splat(0);
  for (const end = source + <usize>vectors * LANES * 4; source < end; source += LANES * 2) {
    largest = i32x4.max_s(largest, v128.and(v128.load(source), magnitude));
  }
  return !v128.any_true(i32x4.gt_s(largest, i32x4.splat(nonFiniteFrom<T>() - 1)));
}
