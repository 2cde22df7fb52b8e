/** Products for 16-bit results: every multiplication and every addition is rounded to f32. */
import { ROW_BYTES_F32, TILE_COLS, TILE_ROWS } from './tile';

/**
 * `sums += scale * (left * right)` for four rows of a strip: 8 accumulators, 2 vectors of the right
 * factor and 4 splats of the left. A function of its own, called often: V8 swaps in optimised code
 * at calls only, and unrolling k makes that code slower.
 *
 * @param sums [4][ROW_BYTES_F32] of f32
 * @param left [rank][4] of f32
 * @param right [panels][rank][8] of f32, with `panelBytes` from panel to panel
 */
export function addProductF32(
  sums: usize, left: usize, right: usize, panelBytes: usize, rank: i32, panels: i32, scale: f32,
): void {
  const scales = f32x4.splat(scale);
  const leftEnd = left + <usize>rank * TILE_ROWS * 4;
  const sumsEnd = sums + <usize>panels * TILE_COLS * 4;
  for (; sums < sumsEnd; sums += TILE_COLS * 4) {
    let a0 = f32x4.splat(0), a1 = f32x4.splat(0), b0 = f32x4.splat(0), b1 = f32x4.splat(0);
    let c0 = f32x4.splat(0), c1 = f32x4.splat(0), d0 = f32x4.splat(0), d1 = f32x4.splat(0);
    let r = right;
    for (let l = left; l < leftEnd; l += TILE_ROWS * 4) {
      const r0 = v128.load(r), r1 = v128.load(r, 16);
      const la = v128.load_splat<f32>(l);
      a0 = f32x4.add(a0, f32x4.mul(la, r0));
      a1 = f32x4.add(a1, f32x4.mul(la, r1));
      const lb = v128.load_splat<f32>(l, 4);
      b0 = f32x4.add(b0, f32x4.mul(lb, r0));
      b1 = f32x4.add(b1, f32x4.mul(lb, r1));
      const lc = v128.load_splat<f32>(l, 8);
      c0 = f32x4.add(c0, f32x4.mul(lc, r0));
      c1 = f32x4.add(c1, f32x4.mul(lc, r1));
      const ld = v128.load_splat<f32>(l, 12);
      d0 = f32x4.add(d0, f32x4.mul(ld, r0));
      d1 = f32x4.add(d1, f32x4.mul(ld, r1));
      r += TILE_COLS * 4;
    }
    addScaled(sums, a0, a1, scales);
    addScaled(sums + ROW_BYTES_F32, b0, b1, scales);
    addScaled(sums + 2 * ROW_BYTES_F32, c0, c1, scales);
    addScaled(sums + 3 * ROW_BYTES_F32, d0, d1, scales);
    right += panelBytes;
  }
}

// @ts-ignore: decorator
@inline
function addScaled(sums: usize, low: v128, high: v128, scales: v128): void {
  v128.store(sums, f32x4.add(v128.load(sums), f32x4.mul(low, scales)));
  v128.store(sums, f32x4.add(v128.load(sums, 16), f32x4.mul(high, scales)), 16);
}
