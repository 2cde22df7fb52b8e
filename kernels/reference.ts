/**
 * The merge kernel in plain TypeScript: the oracle of the tests, and what runs where WebAssembly
 * has no SIMD (tens of times slower, same bytes).
 */
import type { ArenaSpec } from './arena.ts';
import { layOutArena, packedLeftBytes, packedRightBytes } from './arena.ts';
import type { FloatDtype } from './dtypes.ts';
import { ELEMENT_BYTES } from './dtypes.ts';
import type {
  CastOptions,
  FactorBlock,
  FactorExtent,
  MergeKernel,
  MergeOptions,
  MergeSegment,
} from './merge-kernel.ts';
import {
  requireRoom,
  requireSameExtent,
  requireSegments,
  resolveBlock,
  resolveOffsets,
} from './merge-kernel.ts';

const { fround } = Math;

/** One f32 and its bits, to reinterpret the one as the other. */
const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** Exact. An f16 subnormal is its mantissa times 2^-24. */
export function loadElement(view: DataView, byteOffset: number, dtype: FloatDtype): number {
  if (dtype === 'f32') return view.getFloat32(byteOffset, true);
  const half = view.getUint16(byteOffset, true);
  if (dtype === 'bf16') {
    bits[0] = half << 16;
    return float[0]!;
  }
  const exponent = (half >>> 10) & 31;
  const mantissa = half & 0x3ff;
  const sign = half & 0x8000 ? -1 : 1;
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  return sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

/**
 * Rounds an f32 to nearest even; every NaN becomes the positive quiet NaN without payload.
 *
 * @returns whether what was stored is finite
 */
export function storeElement(
  view: DataView,
  byteOffset: number,
  dtype: FloatDtype,
  value: number,
): boolean {
  float[0] = value;
  const word = bits[0]!;
  if (dtype === 'f32') {
    view.setUint32(byteOffset, Number.isNaN(value) ? 0x7fc00000 : word, true);
    return Number.isFinite(value);
  }
  const half = dtype === 'bf16' ? toBf16(value, word) : toF16(value, word);
  view.setUint16(byteOffset, half, true);
  const exponentMask = dtype === 'bf16' ? 0x7f80 : 0x7c00;
  return (half & exponentMask) !== exponentMask;
}

function toBf16(value: number, word: number): number {
  if (Number.isNaN(value)) return 0x7fc0;
  return (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
}

function toF16(value: number, word: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  // 65520 and above are nearer to 65536, which f16 does not have, than to 65504.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  }
  // Below the normal range: the sum with 0.5 has 2^-24, the f16 subnormal step, as its last place.
  float[0] = Math.abs(value) + 0.5;
  return sign | (bits[0]! - 0x3f000000);
}

/** For f32 results, whose products and sums stay as JavaScript's arithmetic gives them. */
const keepFloat64 = (value: number): number => value;

const UNPACKED: FactorExtent = { rank: 0, lanes: 0 };

export class ReferenceKernel implements MergeKernel {
  readonly memory: SharedArrayBuffer;
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  readonly factor: Uint8Array;
  readonly #spec: ArenaSpec;
  /** [row][k] */
  readonly #leftValues: Float32Array;
  /** [k][col] */
  readonly #rightValues: Float32Array;
  #left = UNPACKED;
  #right = UNPACKED;

  constructor(spec: ArenaSpec) {
    const layout = layOutArena(spec);
    const outputBytes = spec.outputBytesMax === 0 ? spec.inputBytesMax : spec.outputBytesMax;
    this.#spec = spec;
    this.memory = new SharedArrayBuffer(layout.leftBegin);
    this.input = new Uint8Array(this.memory, layout.inputBegin, spec.inputBytesMax);
    this.output = new Uint8Array(this.memory, layout.outputBegin, outputBytes);
    this.factor = new Uint8Array(this.memory, layout.factorBegin, spec.factorBytesMax);
    this.#leftValues = new Float32Array(spec.leftBytesMax >>> 2);
    this.#rightValues = new Float32Array(spec.rightBytesMax >>> 2);
  }

  packRight(rank: number, cols: number, block: FactorBlock): void {
    const extent = { rank, lanes: cols };
    requireRoom('right', 0, packedRightBytes(cols, rank) / 4, 'f32', this.#spec.rightBytesMax);
    this.#unpack(extent, block, this.#rightValues, (k, col) => k * cols + col);
    this.#right = extent;
  }

  packLeft(rows: number, rank: number, block: FactorBlock): void {
    const extent = { rank, lanes: rows };
    requireRoom('left', 0, packedLeftBytes(rows, rank) / 4, 'f32', this.#spec.leftBytesMax);
    this.#unpack(extent, block, this.#leftValues, (k, row) => row * rank + k);
    this.#left = extent;
  }

  merge(options: MergeOptions): number {
    requireSameExtent(this.#left, this.#right);
    const { segments, dtypeIn, dtypeOut } = options;
    requireSegments(segments, this.#left.rank);
    const rows = this.#left.lanes;
    const cols = this.#right.lanes;
    const offsets = resolveOffsets({ ...options, count: rows * cols }, this.input, this.output);
    const round = dtypeOut === 'f32' ? keepFloat64 : fround;
    const from = dataView(this.input);
    const to = dataView(this.output);
    const sums = new Float64Array(cols);
    let nonFinite = 0;
    for (let row = 0; row < rows; row++) {
      for (let col = 0; col < cols; col++) {
        const source = offsets.inputOffset + (row * cols + col) * ELEMENT_BYTES[dtypeIn];
        sums[col] = loadElement(from, source, dtypeIn);
      }
      this.#addProducts(row, segments, sums, round);
      for (let col = 0; col < cols; col++) {
        const target = offsets.outputOffset + (row * cols + col) * ELEMENT_BYTES[dtypeOut];
        if (!storeElement(to, target, dtypeOut, fround(sums[col]!))) nonFinite++;
      }
    }
    return nonFinite;
  }

  cast(options: CastOptions): number {
    const { count, dtypeIn, dtypeOut } = options;
    const offsets = resolveOffsets(options, this.input, this.output);
    const from = dataView(this.input);
    const to = dataView(this.output);
    let nonFinite = 0;
    for (let i = 0; i < count; i++) {
      const value = loadElement(from, offsets.inputOffset + i * ELEMENT_BYTES[dtypeIn], dtypeIn);
      const target = offsets.outputOffset + i * ELEMENT_BYTES[dtypeOut];
      if (!storeElement(to, target, dtypeOut, value)) nonFinite++;
    }
    return nonFinite;
  }

  countNonFinite(count: number, dtype: FloatDtype, inputOffset = 0): number {
    requireRoom('input', inputOffset, count, dtype, this.input.length);
    const from = dataView(this.input);
    let nonFinite = 0;
    for (let i = 0; i < count; i++) {
      const value = loadElement(from, inputOffset + i * ELEMENT_BYTES[dtype], dtype);
      if (!Number.isFinite(value)) nonFinite++;
    }
    return nonFinite;
  }

  /** Adds row `row` of every scaled L · R: each product, sum and scaling is rounded. */
  #addProducts(
    row: number,
    segments: readonly MergeSegment[],
    sums: Float64Array,
    round: (value: number) => number,
  ): void {
    const cols = sums.length;
    const product = new Float64Array(cols);
    let rankBegin = 0;
    for (const segment of segments) {
      const scale = round(segment.scale);
      this.#multiplyRow(row, rankBegin, segment.rank, product, round);
      for (let col = 0; col < cols; col++) {
        sums[col] = round(sums[col]! + round(product[col]! * scale));
      }
      rankBegin += segment.rank;
    }
  }

  /** Row `row` of L · R over [rankBegin, +rankCount), k ascending from zero. */
  #multiplyRow(
    row: number,
    rankBegin: number,
    rankCount: number,
    product: Float64Array,
    round: (value: number) => number,
  ): void {
    const { rank } = this.#left;
    const cols = product.length;
    const right = this.#rightValues;
    product.fill(0);
    for (let k = rankBegin; k < rankBegin + rankCount; k++) {
      const left = this.#leftValues[row * rank + k]!;
      for (let col = 0; col < cols; col++) {
        product[col] = round(product[col]! + round(left * right[k * cols + col]!));
      }
    }
  }

  #unpack(
    extent: FactorExtent,
    block: FactorBlock,
    target: Float32Array,
    indexOf: (k: number, lane: number) => number,
  ): void {
    const resolved = resolveBlock(extent, block, this.factor.length);
    const view = dataView(this.factor);
    for (let k = 0; k < resolved.rankCount; k++) {
      for (let lane = 0; lane < resolved.laneCount; lane++) {
        const element = k * resolved.rankStride + lane * resolved.laneStride;
        const source = resolved.byteOffset + element * ELEMENT_BYTES[resolved.dtype];
        const index = indexOf(resolved.rankBegin + k, resolved.laneBegin + lane);
        target[index] = loadElement(view, source, resolved.dtype);
      }
    }
  }
}

function dataView(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
