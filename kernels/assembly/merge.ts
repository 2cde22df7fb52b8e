/**
 * `output = round(input + s1 * (left1 * right1) + s2 * (left2 * right2) + ...)` over a band of rows.
 * In every product k ascends from zero and nothing is fused, so a result depends neither on the
 * tiling nor on the processor.
 */
import { mergeStrip } from './strip';
import { STRIP_COLS, TILE_COLS, TILE_ROWS } from './tile';

/** Packed right factor per column block: half of a small L2 cache, to be read for every four rows. */
const BLOCK_BYTES: i32 = 256 * 1024;

/**
 * @param left [row / 4][rank][4] of f32
 * @param right [col / 8][rank][8] of f32
 * @returns how many stored results are Inf or NaN
 */
export function mergeBand<In, Out>(
  input: usize, output: usize, left: usize, right: usize,
  rows: i32, cols: i32, rank: i32, segments: i32,
): i32 {
  const blockCols = max(1, BLOCK_BYTES / (rank * TILE_COLS * 4)) * TILE_COLS;
  let nonFinite = 0;
  for (let block = 0; block < cols; block += blockCols) {
    const blockEnd = min(cols, block + blockCols);
    for (let row = 0; row < rows; row += TILE_ROWS) {
      for (let col = block; col < blockEnd; col += STRIP_COLS) {
        const offset = <usize>row * cols + col;
        nonFinite += mergeStrip<In, Out>(
          input + offset * sizeof<In>(),
          output + offset * sizeof<Out>(),
          cols,
          left + <usize>row * rank * 4,
          right + <usize>col * rank * 4,
          rank,
          segments,
          min(TILE_ROWS, rows - row),
          min(STRIP_COLS, blockEnd - col),
        );
      }
    }
  }
  return nonFinite;
}
