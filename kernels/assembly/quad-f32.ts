/** Four rows of 16-bit results: every product and every sum is rounded to f32. */
import { loadScalar, storeScalar } from './dtypes';
import { beyondRange, loadFour, maxMagnitude, maxRaw, rawNonFinite, storeEight } from './lanes';
import { TILE_COLS, TILE_ROWS } from './tile';

/**
 * Four rows of `panels` whole panels, with 8 accumulators, 2 vectors of the right factor and 4
 * splats of the left. Rows and columns past `tileRows` and `tileCols` are not counted. A function of its own, called often: V8 swaps in optimised
 * code at calls only, and unrolling k makes that code slower.
 */
export function mergeQuadF32<In, Out>(
  input: usize,
  output: usize,
  inputCols: usize,
  outputCols: usize,
  left: usize,
  right: usize,
  rank: i32,
  panels: i32,
  scale: f32,
  tileRows: i32 = TILE_ROWS,
  tileCols: i32 = TILE_COLS,
): i32 {
  const inputStride = inputCols * sizeof<In>(), outputStride = outputCols * sizeof<Out>();
  const scales = f32x4.splat(scale);
  const leftEnd = left + <usize>rank * TILE_ROWS * 4;
  let nonFinite = 0;
  for (let panel = 0; panel < panels; panel++) {
    let a0 = f32x4.splat(0), a1 = f32x4.splat(0), b0 = f32x4.splat(0), b1 = f32x4.splat(0);
    let c0 = f32x4.splat(0), c1 = f32x4.splat(0), d0 = f32x4.splat(0), d1 = f32x4.splat(0);
    const panelRight = right;
    for (let l = left; l < leftEnd; l += TILE_ROWS * 4) {
      const r0 = v128.load(right);
      const r1 = v128.load(right, 16);
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
      right += TILE_COLS * 4;
    }
    const inputB = input + inputStride, inputC = inputB + inputStride;
    const inputD = inputC + inputStride;
    const high = 4 * sizeof<In>();
    a0 = f32x4.add(loadFour<In>(input), f32x4.mul(a0, scales));
    a1 = f32x4.add(loadFour<In>(input + high), f32x4.mul(a1, scales));
    b0 = f32x4.add(loadFour<In>(inputB), f32x4.mul(b0, scales));
    b1 = f32x4.add(loadFour<In>(inputB + high), f32x4.mul(b1, scales));
    c0 = f32x4.add(loadFour<In>(inputC), f32x4.mul(c0, scales));
    c1 = f32x4.add(loadFour<In>(inputC + high), f32x4.mul(c1, scales));
    d0 = f32x4.add(loadFour<In>(inputD), f32x4.mul(d0, scales));
    d1 = f32x4.add(loadFour<In>(inputD + high), f32x4.mul(d1, scales));
    const sums = maxOfEight(a0, a1, b0, b1, c0, c1, d0, d1);
    const raws = maxRaw<In>(
      maxRaw<In>(maxRaw<In>(maxRaw<In>(i32x4.splat(0), input), inputB), inputC),
      inputD,
    );
    if (v128.any_true(v128.or(beyondRange<Out>(sums), rawNonFinite<In>(raws)))) {
      nonFinite += mergeTileScalar<In, Out>(
        input, inputStride, output, outputStride, left, panelRight, rank, scale, tileRows, tileCols,
      );
    } else {
      storeEight<Out>(output, a0, a1);
      storeEight<Out>(output + outputStride, b0, b1);
      storeEight<Out>(output + 2 * outputStride, c0, c1);
      storeEight<Out>(output + 3 * outputStride, d0, d1);
    }
    input += TILE_COLS * sizeof<In>();
    output += TILE_COLS * sizeof<Out>();
  }
  return nonFinite;
}

// @ts-ignore: decorator
@inline
function maxOfEight(
  a0: v128, a1: v128, b0: v128, b1: v128, c0: v128, c1: v128, d0: v128, d1: v128,
): v128 {
  let max = maxMagnitude(i32x4.splat(0), a0);
  max = maxMagnitude(maxMagnitude(max, a1), b0);
  max = maxMagnitude(maxMagnitude(max, b1), c0);
  max = maxMagnitude(maxMagnitude(max, c1), d0);
  return maxMagnitude(max, d1);
}

/** A tile in which something is not finite: rare, so one element at a time. */
function mergeTileScalar<In, Out>(
  input: usize,
  inputStride: usize,
  output: usize,
  outputStride: usize,
  left: usize,
  right: usize,
  rank: i32,
  scale: f32,
  tileRows: i32,
  tileCols: i32,
): i32 {
  let nonFinite = 0;
  for (let row = 0; row < tileRows; row++) {
    for (let col = 0; col < tileCols; col++) {
      let sum: f32 = 0;
      for (let k = 0; k < rank; k++) {
        const l = load<f32>(left + ((<usize>k * TILE_ROWS + row) << 2));
        sum += l * load<f32>(right + ((<usize>k * TILE_COLS + col) << 2));
      }
      const weight = loadScalar<In>(input + <usize>row * inputStride + <usize>col * sizeof<In>());
      const to = output + <usize>row * outputStride + <usize>col * sizeof<Out>();
      nonFinite += storeScalar<Out>(to, weight + sum * scale);
    }
  }
  return nonFinite;
}
