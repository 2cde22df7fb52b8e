/**
 * A strip is four rows of at most `STRIP_COLS` columns. Its sums begin as the weights, take up one
 * product after the other, and are rounded once, when they are stored.
 */
import { decodeElements } from './decode';
import { encodeElements } from './encode';
import { addProductF32 } from './product-f32';
import { addProductF64 } from './product-f64';
import { segmentRank, segmentScale } from './segments';
import { ROW_BYTES_F32, ROW_BYTES_F64, STRIP_COLS, TILE_COLS, TILE_ROWS } from './tile';

/** [4][ROW_BYTES_F32] of f32; sums of 16-bit results, and where f32 ones pass through. */
export const stripF32 = memory.data(8320, 16);
/** [4][ROW_BYTES_F64] of f64; sums of f32 results. */
const stripF64 = memory.data(16640, 16);

/**
 * Merges `rows` (at most four) by `cols` elements, which lie `stride` elements apart from row to
 * row. Rows and columns that fill up the last tile are worked out from whatever is in the panels,
 * and never stored.
 *
 * @param left [rank][4] of f32
 * @param right [panels][rank][8] of f32
 * @returns how many stored results are Inf or NaN
 */
export function mergeStrip<In, Out>(
  input: usize, output: usize, stride: usize, left: usize, right: usize,
  rank: i32, segments: i32, rows: i32, cols: i32,
): i32 {
  for (let row = 0; row < rows; row++) {
    const from = input + <usize>row * stride * sizeof<In>();
    decodeElements<In>(from, stripF32 + <usize>row * ROW_BYTES_F32, cols);
  }
  const panels = (cols + TILE_COLS - 1) / TILE_COLS;
  if (isFloat<Out>()) promoteRows(rows, panels * TILE_COLS);
  const panelBytes = <usize>rank * TILE_COLS * 4;
  for (let segment = 0; segment < segments; segment++) {
    const count = segmentRank(segment), scale = segmentScale(segment);
    if (isFloat<Out>()) {
      addProductF64(stripF64, left, right, panelBytes, count, panels, scale);
    } else {
      addProductF32(stripF32, left, right, panelBytes, count, panels, <f32>scale);
    }
    left += <usize>count * TILE_ROWS * 4;
    right += <usize>count * TILE_COLS * 4;
  }
  if (isFloat<Out>()) demoteRows(rows, panels * TILE_COLS);
  let nonFinite = 0;
  for (let row = 0; row < rows; row++) {
    const to = output + <usize>row * stride * sizeof<Out>();
    nonFinite += encodeElements<Out>(stripF32 + <usize>row * ROW_BYTES_F32, to, cols);
  }
  return nonFinite;
}

/** From `stripF32` to `stripF64`. @param cols a multiple of four, as in the next */
function promoteRows(rows: i32, cols: i32): void {
  for (let row = 0; row < rows; row++) {
    let from = stripF32 + <usize>row * ROW_BYTES_F32;
    let to = stripF64 + <usize>row * ROW_BYTES_F64;
    for (let col = 0; col < cols; col += 4) {
      v128.store(to, f64x2.promote_low_f32x4(v128.load64_zero(from)));
      v128.store(to, f64x2.promote_low_f32x4(v128.load64_zero(from, 8)), 16);
      from += 16;
      to += 32;
    }
  }
}

/** From `stripF64` to `stripF32`: the one rounding of f32 results. */
function demoteRows(rows: i32, cols: i32): void {
  for (let row = 0; row < rows; row++) {
    let from = stripF64 + <usize>row * ROW_BYTES_F64;
    let to = stripF32 + <usize>row * ROW_BYTES_F32;
    for (let col = 0; col < cols; col += 4) {
      const low = f32x4.demote_f64x2_zero(v128.load(from));
      const high = f32x4.demote_f64x2_zero(v128.load(from, 16));
      v128.store(to, v128.shuffle<i32>(low, high, 0, 1, 4, 5));
      from += 32;
      to += 16;
    }
  }
}
