/**
 * Four rows of f32 results, worked out in f64: a product of two f32 is exact there, and what the
 * sums lose is far below the one rounding to f32 at the end.
 */
import { F16_RANGE_END, loadScalar, storeScalar } from './dtypes';
import { beyondRange, loadFour, maxMagnitude } from './lanes';
import { TILE_COLS, TILE_ROWS } from './tile';

/** Half a panel: f64 lanes are twice as wide, and there are no more registers. */
const HALF_COLS: i32 = TILE_COLS / 2;
const HALVES: i32 = 2;

/** As `mergeQuadF32`, half a panel at a time. */
export function mergeQuadF64<In>(
  input: usize,
  output: usize,
  inputCols: usize,
  outputCols: usize,
  left: usize,
  right: usize,
  rank: i32,
  panels: i32,
  scale: f64,
  tileRows: i32 = TILE_ROWS,
  tileCols: i32 = TILE_COLS,
): i32 {
  const inputStride = inputCols * sizeof<In>(), outputStride = outputCols * sizeof<f32>();
  const scales = f64x2.splat(scale);
  const leftEnd = left + <usize>rank * TILE_ROWS * 4;
  let nonFinite = 0;
  for (let half = 0; half < panels * HALVES; half++) {
    const isUpper = half % HALVES;
    const panelRight = right + <usize>(half / HALVES) * rank * TILE_COLS * 4;
    const halfRight = panelRight + <usize>isUpper * HALF_COLS * 4;
    let a0 = f64x2.splat(0), a1 = f64x2.splat(0), b0 = f64x2.splat(0), b1 = f64x2.splat(0);
    let c0 = f64x2.splat(0), c1 = f64x2.splat(0), d0 = f64x2.splat(0), d1 = f64x2.splat(0);
    let r = halfRight;
    for (let l = left; l < leftEnd; l += TILE_ROWS * 4) {
      const r0 = f64x2.promote_low_f32x4(v128.load64_zero(r));
      const r1 = f64x2.promote_low_f32x4(v128.load64_zero(r, 8));
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
      r += TILE_COLS * 4;
    }
    const weightA = loadFour<In>(input), weightB = loadFour<In>(input + inputStride);
    const weightC = loadFour<In>(input + 2 * inputStride);
    const weightD = loadFour<In>(input + 3 * inputStride);
    const sumA = mergeFour(weightA, a0, a1, scales), sumB = mergeFour(weightB, b0, b1, scales);
    const sumC = mergeFour(weightC, c0, c1, scales), sumD = mergeFour(weightD, d0, d1, scales);
    const beyond = v128.or(
      beyondRange<f32>(maxOfFour(sumA, sumB, sumC, sumD)),
      widenedNonFinite<In>(maxOfFour(weightA, weightB, weightC, weightD)),
    );
    if (v128.any_true(beyond)) {
      nonFinite += mergeHalfScalar<In>(
        input, inputStride, output, outputStride, left, halfRight, rank, scale, tileRows,
        min(HALF_COLS, tileCols - isUpper * HALF_COLS),
      );
    } else {
      v128.store(output, sumA);
      v128.store(output + outputStride, sumB);
      v128.store(output + 2 * outputStride, sumC);
      v128.store(output + 3 * outputStride, sumD);
    }
    input += HALF_COLS * sizeof<In>();
    output += HALF_COLS * sizeof<f32>();
  }
  return nonFinite;
}

/** `weights + scales * products` of four elements, rounded to f32 once. */
// @ts-ignore: decorator
@inline
function mergeFour(weights: v128, low: v128, high: v128, scales: v128): v128 {
  const upper = v128.shuffle<i32>(weights, weights, 2, 3, 2, 3);
  const first = f64x2.add(f64x2.promote_low_f32x4(weights), f64x2.mul(low, scales));
  const last = f64x2.add(f64x2.promote_low_f32x4(upper), f64x2.mul(high, scales));
  const rounded = f32x4.demote_f64x2_zero(first);
  return v128.shuffle<i32>(rounded, f32x4.demote_f64x2_zero(last), 0, 1, 4, 5);
}

// @ts-ignore: decorator
@inline
function maxOfFour(a: v128, b: v128, c: v128, d: v128): v128 {
  const max = maxMagnitude(maxMagnitude(i32x4.splat(0), a), b);
  return maxMagnitude(maxMagnitude(max, c), d);
}

/** All ones in the lanes whose weight was an f16 Inf or NaN, which `loadFour` makes finite. */
// @ts-ignore: decorator
@inline
function widenedNonFinite<In>(magnitudes: v128): v128 {
  if (isFloat<In>() || !isSigned<In>()) return i32x4.splat(0);
  return i32x4.gt_s(magnitudes, i32x4.splat(F16_RANGE_END - 1));
}

/** Half a tile in which something is not finite: rare, so one element at a time. */
function mergeHalfScalar<In>(
  input: usize,
  inputStride: usize,
  output: usize,
  outputStride: usize,
  left: usize,
  right: usize,
  rank: i32,
  scale: f64,
  rows: i32,
  cols: i32,
): i32 {
  let nonFinite = 0;
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      let sum: f64 = 0;
      for (let k = 0; k < rank; k++) {
        const l = <f64>load<f32>(left + ((<usize>k * TILE_ROWS + row) << 2));
        sum += l * <f64>load<f32>(right + ((<usize>k * TILE_COLS + col) << 2));
      }
      const weight = loadScalar<In>(input + <usize>row * inputStride + <usize>col * sizeof<In>());
      const to = output + <usize>row * outputStride + <usize>col * sizeof<f32>();
      nonFinite += storeScalar<f32>(to, <f32>(<f64>weight + sum * scale));
    }
  }
  return nonFinite;
}
