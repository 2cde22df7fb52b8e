/** The table of segments, which the caller fills in before a merge. */

/** `kernels/merge-kernel.ts` holds the same number. */
const SEGMENTS_MAX = 256;
const SEGMENT_BYTES: usize = 16;

/** Per segment its scale as f64, its rank as i32, and 4 bytes of nothing. */
export const segmentTable = memory.data(4096, 16);

// @ts-ignore: decorator
@inline
export function segmentScale(index: i32): f64 {
  return load<f64>(segmentTable + <usize>index * SEGMENT_BYTES);
}

// @ts-ignore: decorator
@inline
export function segmentRank(index: i32): i32 {
  return load<i32>(segmentTable + <usize>index * SEGMENT_BYTES, 8);
}
