/** From stored elements to f32: exact, apart from the payload of an f16 NaN. */
import { F16_REBIAS, loadScalar } from './dtypes';

const LANES: i32 = 8;

/*
 * Constants are loaded from memory into locals: a literal vector would be built anew from 64-bit
 * integers in every turn of a loop, because V8 does not hoist it.
 */
const RAW_MAGNITUDE = memory.data<i32>([0x7fff7fff, 0x7fff7fff, 0x7fff7fff, 0x7fff7fff], 16);
const RAW_FINITE_MAX = memory.data<i32>([0x7bff7bff, 0x7bff7bff, 0x7bff7bff, 0x7bff7bff], 16);
/** An f16 sign-extended and shifted left by 13, without the surplus copies of its sign. */
const WIDENED = memory.data<u32>([0x8fffe000, 0x8fffe000, 0x8fffe000, 0x8fffe000], 16);
const REBIAS = memory.data<f32>([F16_REBIAS, F16_REBIAS, F16_REBIAS, F16_REBIAS], 16);

/** Writes `count` elements in a row as f32. */
export function decodeElements<T>(source: usize, target: usize, count: i32): void {
  if (isFloat<T>()) {
    memory.copy(target, source, <usize>count * 4);
  } else if (isSigned<T>()) {
    decodeF16(source, target, count);
  } else {
    decodeBF16(source, target, count);
  }
}

function decodeBF16(source: usize, target: usize, count: i32): void {
  const vectorsEnd = source + <usize>(count / LANES) * LANES * 2;
  const end = source + <usize>count * 2;
  while (source < vectorsEnd) {
    v128.store(target, i32x4.shl(v128.load16x4_u(source), 16));
    v128.store(target, i32x4.shl(v128.load16x4_u(source, 8), 16), 16);
    source += LANES * 2;
    target += LANES * 4;
  }
  decodeScalars<u16>(source, target, end);
}

/**
 * The multiplication makes Inf and NaN a finite number of 65536 or more; they are rare enough to
 * go over all the elements again, one by one.
 */
function decodeF16(source: usize, target: usize, count: i32): void {
  const first = source, firstTarget = target;
  const vectorsEnd = source + <usize>(count / LANES) * LANES * 2;
  const end = source + <usize>count * 2;
  const widened = v128.load(WIDENED), rebias = v128.load(REBIAS);
  const magnitude = v128.load(RAW_MAGNITUDE);
  let largest = i16x8.splat(0);
  while (source < vectorsEnd) {
    const low = v128.and(i32x4.shl(v128.load16x4_s(source), 13), widened);
    const high = v128.and(i32x4.shl(v128.load16x4_s(source, 8), 13), widened);
    largest = i16x8.max_s(largest, v128.and(v128.load(source), magnitude));
    v128.store(target, f32x4.mul(low, rebias));
    v128.store(target, f32x4.mul(high, rebias), 16);
    source += LANES * 2;
    target += LANES * 4;
  }
  if (v128.any_true(i16x8.gt_s(largest, v128.load(RAW_FINITE_MAX)))) {
    source = first;
    target = firstTarget;
  }
  decodeScalars<i16>(source, target, end);
}

function decodeScalars<T>(source: usize, target: usize, end: usize): void {
  while (source < end) {
    store<f32>(target, loadScalar<T>(source));
    source += sizeof<T>();
    target += 4;
  }
}
