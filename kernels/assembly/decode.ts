/** From stored elements to the f32 of a strip: exact, apart from the payload of an f16 NaN. */
import { F16_REBIAS, loadScalar } from './dtypes';
import { slotOf } from './tile';

const LANES: i32 = 8;

/*
 * Constants are loaded from memory into locals: a literal vector would be built anew from 64-bit
 * integers in every turn of a loop, because V8 does not hoist it.
 */
const UPPER = memory.data<u32>([0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000], 16);
const RAW_MAGNITUDE = memory.data<i32>([0x7fff7fff, 0x7fff7fff, 0x7fff7fff, 0x7fff7fff], 16);
const RAW_FINITE_MAX = memory.data<i32>([0x7bff7bff, 0x7bff7bff, 0x7bff7bff, 0x7bff7bff], 16);
/** In an f16 of magnitude 2 and above, of which there are few; and in none below. */
const RAW_LARGE = memory.data<i32>([0x40004000, 0x40004000, 0x40004000, 0x40004000], 16);
/** An f16 shifted from bit 16 to bit 13, without the surplus copies of its sign. */
const WIDENED = memory.data<u32>([0x8fffe000, 0x8fffe000, 0x8fffe000, 0x8fffe000], 16);
const REBIAS = memory.data<f32>([F16_REBIAS, F16_REBIAS, F16_REBIAS, F16_REBIAS], 16);

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
 * The multiplication makes Inf and NaN a finite number of 65536 or more.
 *
 * @returns whether there were none
 */
function decodeF16(source: usize, target: usize, vectors: i32): bool {
  const widened = v128.load(WIDENED), rebias = v128.load(REBIAS);
  const first = source;
  let seen = i32x4.splat(0);
  for (const end = source + <usize>vectors * LANES * 2; source < end; source += LANES * 2) {
    const odd = v128.load(source);
    // Two bytes before, so that even elements are in the upper halves; only those are kept.
    const even = v128.load(source - 2);
    seen = v128.or(seen, odd);
    v128.store(target, f32x4.mul(v128.and(i32x4.shr_s(even, 3), widened), rebias));
    v128.store(target, f32x4.mul(v128.and(i32x4.shr_s(odd, 3), widened), rebias), 16);
    target += LANES * 4;
  }
  return !v128.any_true(v128.and(seen, v128.load(RAW_LARGE))) || isFiniteF16(first, vectors);
}

function isFiniteF16(source: usize, vectors: i32): bool {
  const magnitude = v128.load(RAW_MAGNITUDE);
  let largest = i16x8.splat(0);
  for (const end = source + <usize>vectors * LANES * 2; source < end; source += LANES * 2) {
    largest = i16x8.max_s(largest, v128.and(v128.load(source), magnitude));
  }
  return !v128.any_true(i16x8.gt_s(largest, v128.load(RAW_FINITE_MAX)));
}
