/** From stored elements to the f32 of a strip: exact, apart from the payload of an f16 NaN. */
import { F16_MIN_NORMAL, loadScalar } from './dtypes';
import { slotOf } from './tile';

const LANES: i32 = 8;

/*
 * Constants are loaded from memory into locals: a literal vector would be built anew from 64-bit
 * integers in every turn of a loop, because V8 does not hoist it.
 */
const UPPER = memory.data<u32>([0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000], 16);
const RAW_EXPONENT = memory.data<i32>([0x7c007c00, 0x7c007c00, 0x7c007c00, 0x7c007c00], 16);
/** An f16 shifted from bit 16 to bit 13, without the surplus copies of its sign. */
const WIDENED = memory.data<u32>([0x8fffe000, 0x8fffe000, 0x8fffe000, 0x8fffe000], 16);
const SIGN = memory.data<u32>([0x80000000, 0x80000000, 0x80000000, 0x80000000], 16);
/** The difference of the exponents' biases, 127 - 15. */
const B: i32 = 112 << 23;
const REBIAS = memory.data<i32>([B, B, B, B], 16);
/** 2^-14 as f32. */
const M: i32 = F16_MIN_NORMAL;
const MIN_NORMAL = memory.data<i32>([M, M, M, M], 16);

/** Writes `count` elements in a row as f32, in the order of `slotOf`. */
export function decodeElements<T>(source: usize, target: usize, count: i32): void {
  const vectors = count / LANES;
  let isDone = true;
  if (isFloat<T>()) decodeF32(source, target, vectors);
  else if (isSigned<T>()) isDone = decodeF16(source, target, vectors);
  else decodeBF16(source, target, vectors);
  for (let i = isDone ? vectors * LANES : 0; i < count; i++) {
    const value = loadScalar<T>(source + <usize>i * sizeof<T>());
    store<f32>(target + (<usize>slotOf(i) << 2), value);
  }
}

function decodeF32(source: usize, target: usize, vectors: i32): void {
  for (const end = source + <usize>vectors * LANES * 4; source < end; source += LANES * 4) {
    const first = v128.load(source), last = v128.load(source, 16);
    v128.store(target, v128.shuffle<i32>(first, last, 0, 2, 4, 6));
    v128.store(target, v128.shuffle<i32>(first, last, 1, 3, 5, 7), 16);
    target += LANES * 4;
  }
}

function decodeBF16(source: usize, target: usize, vectors: i32): void {
  const upper = v128.load(UPPER);
  for (const end = source + <usize>vectors * LANES * 2; source < end; source += LANES * 2) {
    const raw = v128.load(source);
    v128.store(target, i32x4.shl(raw, 16));
    v128.store(target, v128.and(raw, upper), 16);
    target += LANES * 4;
  }
}

/**
 * Normal numbers, which most are, only need another bias, four vectors after one look at them all.
 *
 * @returns whether all were finite; what was not is written as a finite number
 */
function decodeF16(source: usize, target: usize, vectors: i32): bool {
  const exponentMask = v128.load(RAW_EXPONENT);
  const widened = v128.load(WIDENED), bias = v128.load(REBIAS);
  let largest = i16x8.splat(0);
  for (; vectors >= 4; vectors -= 4) {
    const a = v128.and(v128.load(source), exponentMask);
    const b = v128.and(v128.load(source, 16), exponentMask);
    const c = v128.and(v128.load(source, 32), exponentMask);
    const d = v128.and(v128.load(source, 48), exponentMask);
    largest = i16x8.max_s(largest, i16x8.max_s(i16x8.max_s(a, b), i16x8.max_s(c, d)));
    if (i16x8.all_true(i16x8.min_s(i16x8.min_s(a, b), i16x8.min_s(c, d)))) {
      decodeNormal(source, target, widened, bias);
      decodeNormal(source + 16, target + 32, widened, bias);
      decodeNormal(source + 32, target + 64, widened, bias);
      decodeNormal(source + 48, target + 96, widened, bias);
    } else {
      for (let i = 0; i < 4; i++) decodeAny(source + (i << 4), target + (i << 5));
    }
    source += 4 * LANES * 2;
    target += 4 * LANES * 4;
  }
  for (; vectors > 0; vectors--) {
    largest = i16x8.max_s(largest, v128.and(v128.load(source), exponentMask));
    decodeAny(source, target);
    source += LANES * 2;
    target += LANES * 4;
  }
  return !v128.any_true(i16x8.eq(largest, exponentMask));
}

/** Eight f16, none of them zero or subnormal. */
// @ts-ignore: decorator
@inline
function decodeNormal(source: usize, target: usize, widened: v128, bias: v128): void {
  // Two bytes before, even elements are in the upper halves.
  const even = v128.and(i32x4.shr_s(v128.load(source - 2), 3), widened);
  const odd = v128.and(i32x4.shr_s(v128.load(source), 3), widened);
  v128.store(target, i32x4.add(even, bias));
  v128.store(target, i32x4.add(odd, bias), 16);
}

/** Eight f16, without arithmetic on subnormal f32: processors take a hundred cycles over it. */
function decodeAny(source: usize, target: usize): void {
  v128.store(target, decodePairs(v128.load(source - 2)));
  v128.store(target, decodePairs(v128.load(source)), 16);
}

/**
 * The upper halves of `pairs`. Below 2^-14 the bias adds an implicit bit too many: it makes
 * 2^-15 (1 + f) of 2^-15 (2f).
 */
// @ts-ignore: decorator
@inline
function decodePairs(pairs: v128): v128 {
  const widened = v128.and(i32x4.shr_s(pairs, 3), v128.load(WIDENED));
  const sign = v128.and(widened, v128.load(SIGN));
  const magnitude = i32x4.add(v128.xor(widened, sign), v128.load(REBIAS));
  const excess = f32x4.pmin(f32x4.sub(magnitude, v128.load(MIN_NORMAL)), f32x4.splat(0));
  return v128.or(f32x4.add(magnitude, excess), sign);
}
