/** Sizes of what is worked on at once; `kernels/arena.ts` holds the panels' too. */

/** The register tile, and the panels of the packed factors. */
export const TILE_ROWS: i32 = 4;
export const TILE_COLS: i32 = 8;

/** Columns of a strip: as many as keep its sums in a small L1 cache. */
export const STRIP_COLS: i32 = 512;

/** One panel more than a strip has: four rows of a power of two would share their cache sets. */
const ROW_ELEMENTS: usize = STRIP_COLS + TILE_COLS;
export const ROW_BYTES_F32: usize = ROW_ELEMENTS * 4;
export const ROW_BYTES_F64: usize = ROW_ELEMENTS * 8;

/**
 * Where a column is in its group of eight, in strips and in panels of the right factor: the even
 * columns come first. Two 16-bit elements share 32 bits in memory, and so do the lanes of an even
 * and of an odd vector, which saves moving them past each other.
 */
// @ts-ignore: decorator
@inline
export function slotOf(col: i32): i32 {
  return (col & ~7) | ((col & 1) << 2) | ((col & 7) >> 1);
}
