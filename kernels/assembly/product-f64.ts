/**
 * Products for f32 results, worked out in f64: a product of two f32 is exact there, and what the
 * sums lose is far below the one rounding to f32 at the end.
 */
import { ROW_BYTES_F64, TILE_COLS, TILE_ROWS } from './tile';

/** Half a panel: f64 lanes are twice as wide, and there are no more registers. */
const HALF_COLS: i32 = TILE_COLS / 2;

/** As `addProductF32`, half a panel at a time. @param sums [4][ROW_BYTES_F64] of f64 */
export function addProductF64(
  sums: usize, left: usize, right: usize, panelBytes: usize, rank: i32, panels: i32, scale: f64,
): void {
  for (let panel = 0; panel < panels; panel++) {
    addHalfPanel(sums, left, right, rank, scale);
    addHalfPanel(sums + HALF_COLS * 8, left, right + HALF_COLS * 4, rank, scale);
    sums += TILE_COLS * 8;
    right += panelBytes;
  }
}

function addHalfPanel(sums: usize, left: usize, right: usize, rank: i32, scale: f64): void {
  const scales = f64x2.splat(scale);
  const leftEnd = left + <usize>rank * TILE_ROWS * 4;
  let a0 = f64x2.splat(0), a1 = f64x2.splat(0), b0 = f64x2.splat(0), b1 = f64x2.splat(0);
  let c0 = f64x2.splat(0), c1 = f64x2.splat(0), d0 = f64x2.splat(0), d1 = f64x2.splat(0);
  for (let l = left; l < leftEnd; l += TILE_ROWS * 4) {
    const r0 = f64x2.promote_low_f32x4(v128.load64_zero(right));
    const r1 = f64x2.promote_low_f32x4(v128.load64_zero(right, 8));
    const la = f64x2.promote_low_f32x4(v128.load_splat<f32>(l));
    a0 = f64x2.add(a0, f64x2.mul(la, r0));
    a1 = f64x2.add(a1, f64x2.mul(la, r1));
    const lb = f64x2.promote_low_f32x4(v128.load_splat<f32>(l, 4));
    b0 = f64x2.add(b0, f64x2.mul(lb, r0));
    b1 = f64x2.add(b1, f64x2.mul(lb, r1));
    const lc = f64x2.promote_low_f32x4(v128.load_splat<f32>(l, 8));
    c0 = f64x2.add(c0, f64x2.mul(lc, r0));
    c1 = f64x2.add(c1, f64x2.mul(lc, r1));
    const ld = f64x2.promote_low_f32x4(v128.load_splat<f32>(l, 12));
    d0 = f64x2.add(d0, f64x2.mul(ld, r0));
    d1 = f64x2.add(d1, f64x2.mul(ld, r1));
    right += TILE_COLS * 4;
  }
  addScaled(sums, a0, a1, scales);
  addScaled(sums + ROW_BYTES_F64, b0, b1, scales);
  addScaled(sums + 2 * ROW_BYTES_F64, c0, c1, scales);
  addScaled(sums + 3 * ROW_BYTES_F64, d0, d1, scales);
}

// @ts-ignore: decorator
@inline
function addScaled(sums: usize, low: v128, high: v128, scales: v128): void {
  v128.store(sums, f64x2.add(v128.load(sums), f64x2.mul(low, scales)));
  v128.store(sums, f64x2.add(v128.load(sums, 16), f64x2.mul(high, scales)), 16);
}
