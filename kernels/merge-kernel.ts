/** The contract of the merge kernels and the checks that its implementations share. */
import type { FloatDtype } from './dtypes.ts';
import { ELEMENT_BYTES } from './dtypes.ts';

/**
 * A rectangle of a factor, staged in `MergeKernel.factor`. A lane is a column of the right factor
 * or a row of the left one. Strides count elements, so that every layout in use can be named:
 *
 * | stored | factor | rankStride | laneStride |
 * |---|---|---|---|
 * | Linear `lora_A` [r, in] | right | in | 1 |
 * | Linear `lora_B` [out, r] | left | 1 | r |
 * | Conv1D `lora_B` [out, r], R = Bᵀ | right | 1 | r |
 * | Conv1D `lora_A` [r, in], L = Aᵀ | left | in | 1 |
 * | expert e of `lora_B` [out, r·E] | left, offset e | E | r·E |
 */
export interface FactorBlock {
  readonly dtype: FloatDtype;
  /** Of element (rankBegin, laneBegin), in bytes from the start of `factor`; default 0. */
  readonly byteOffset?: number;
  readonly rankStride: number;
  readonly laneStride: number;
  /** The part of the rank that this block covers; default all of it. */
  readonly rankBegin?: number;
  readonly rankCount?: number;
  /** The lanes that this block covers; default all of them. */
  readonly laneBegin?: number;
  readonly laneCount?: number;
}

/** One adapter's share of the packed factors. */
export interface MergeSegment {
  readonly rank: number;
  /** Applied to the finished product: rounded to f32 for 16-bit results, as it is for f32 ones. */
  readonly scale: number;
}

/** Room in the kernel's own memory, and far more adapters than anyone merges at once. */
export const SEGMENTS_MAX = 256;

export interface MergeOptions {
  /** How the packed rank is divided, in order of k; their ranks add up to it. */
  readonly segments: readonly MergeSegment[];
  readonly dtypeIn: FloatDtype;
  readonly dtypeOut: FloatDtype;
  /** Where the band starts in `input`, in bytes, at any alignment; default 0. */
  readonly inputOffset?: number;
  /** Where the result starts in `output`; default 0, and `inputOffset` in place. */
  readonly outputOffset?: number;
}

export interface CastOptions {
  /** Elements. */
  readonly count: number;
  readonly dtypeIn: FloatDtype;
  readonly dtypeOut: FloatDtype;
  readonly inputOffset?: number;
  readonly outputOffset?: number;
}

/**
 * Merges bands of rows, in memory of its own. Every implementation gives the same bytes.
 *
 * Read a band into `input`, stage and pack its factors, call `merge`, write `output` out. The right
 * factor stays packed over all the bands of a matrix. Misuse throws a RangeError.
 */
export interface MergeKernel {
  /**
   * What holds all the areas: another thread may read `output` there, at its `byteOffset`, while
   * this one waits for it.
   */
  readonly memory: SharedArrayBuffer;
  readonly input: Uint8Array;
  /** The same memory as `input` in place. */
  readonly output: Uint8Array;
  readonly factor: Uint8Array;

  /** Upcasts a staged block into the right factor R [rank, cols]. */
  packRight(rank: number, cols: number, block: FactorBlock): void;

  /** Upcasts a staged block into the left factor of a band, L [rows, rank]. */
  packLeft(rows: number, rank: number, block: FactorBlock): void;

  /**
   * `output = round(input + s₁ · (L₁ · R₁) + s₂ · (L₂ · R₂) + …)` over [rows, cols] of the packed
   * factors, one term per segment: each a sum over ascending k, then scaled, then added; and one
   * rounding to nearest even at the end. What comes before it is done in f32 for 16-bit results,
   * and in f64 for f32 ones: products of f32 are exact there, so that these are the nearest to the
   * exact value, up to one in many millions. Any NaN becomes the positive quiet NaN without payload.
   *
   * @returns how many results are Inf or NaN, counted after the rounding
   */
  merge(options: MergeOptions): number;

  /** `output = round(input)`, as in `merge`. @returns how many results are Inf or NaN */
  cast(options: CastOptions): number;

  /** @returns how many of `count` elements of `input`, from `inputOffset`, are Inf or NaN */
  countNonFinite(count: number, dtype: FloatDtype, inputOffset?: number): number;
}

export interface FactorExtent {
  readonly rank: number;
  readonly lanes: number;
}

export type ResolvedBlock = Required<FactorBlock>;

/** Fills in the defaults of a block and checks that it lies inside the factor and the staging. */
export function resolveBlock(
  extent: FactorExtent,
  block: FactorBlock,
  factorBytes: number,
): ResolvedBlock {
  const { rank, lanes } = extent;
  requireCount('rank', rank, 1);
  requireCount('lanes', lanes, 1);
  const rankBegin = block.rankBegin ?? 0;
  const laneBegin = block.laneBegin ?? 0;
  const resolved = {
    ...block,
    byteOffset: block.byteOffset ?? 0,
    rankBegin,
    rankCount: block.rankCount ?? rank - rankBegin,
    laneBegin,
    laneCount: block.laneCount ?? lanes - laneBegin,
  };
  requireCount('byteOffset', resolved.byteOffset, 0);
  requireCount('rankStride', block.rankStride, 1);
  requireCount('laneStride', block.laneStride, 1);
  requireRange('rank', rankBegin, resolved.rankCount, rank);
  requireRange('lane', laneBegin, resolved.laneCount, lanes);
  const lastElement =
    (resolved.rankCount - 1) * block.rankStride + (resolved.laneCount - 1) * block.laneStride;
  requireRoom('factor', resolved.byteOffset, lastElement + 1, block.dtype, factorBytes);
  return resolved;
}

export function requireSameExtent(left: FactorExtent, right: FactorExtent): void {
  if (left.rank !== right.rank || left.rank === 0) {
    throw new RangeError(`packed factors of rank ${left.rank} and ${right.rank} do not multiply`);
  }
}

/** Checks that segments divide the packed rank among them. */
export function requireSegments(segments: readonly MergeSegment[], rank: number): void {
  if (segments.length > SEGMENTS_MAX) {
    throw new RangeError(`${segments.length} segments are more than the kernel's ${SEGMENTS_MAX}`);
  }
  let total = 0;
  for (const segment of segments) {
    requireCount('segment rank', segment.rank, 1);
    total += segment.rank;
  }
  if (total !== rank) {
    throw new RangeError(`segments of rank ${total} in all do not divide factors of rank ${rank}`);
  }
}

export interface Span {
  readonly count: number;
  readonly dtypeIn: FloatDtype;
  readonly dtypeOut: FloatDtype;
  readonly inputOffset?: number | undefined;
  readonly outputOffset?: number | undefined;
}

/** Checks that a span of elements fits both areas. In place, it must also keep its bytes. */
export function resolveOffsets(
  span: Span,
  input: Uint8Array,
  output: Uint8Array,
): { inputOffset: number; outputOffset: number } {
  const isInPlace = input.byteOffset === output.byteOffset && input.buffer === output.buffer;
  const inputOffset = span.inputOffset ?? 0;
  const outputOffset = span.outputOffset ?? (isInPlace ? inputOffset : 0);
  requireRoom('input', inputOffset, span.count, span.dtypeIn, input.length);
  requireRoom('output', outputOffset, span.count, span.dtypeOut, output.length);
  if (isInPlace && span.count > 0) {
    const keepsBytes = ELEMENT_BYTES[span.dtypeIn] === ELEMENT_BYTES[span.dtypeOut];
    if (!keepsBytes || inputOffset !== outputOffset) {
      throw new RangeError(
        `${span.dtypeIn} to ${span.dtypeOut} at ${inputOffset} and ${outputOffset} does not work ` +
          'in place; give the arena an output area',
      );
    }
  }
  return { inputOffset, outputOffset };
}

export function requireRoom(
  area: string,
  offset: number,
  count: number,
  dtype: FloatDtype,
  bytesMax: number,
): void {
  requireCount(`${area} offset`, offset, 0);
  requireCount(`${area} count`, count, 0);
  const end = offset + count * ELEMENT_BYTES[dtype];
  if (end > bytesMax) {
    throw new RangeError(`${area} area of ${bytesMax} bytes is too small: ${end} are needed`);
  }
}

function requireRange(name: string, begin: number, count: number, end: number): void {
  requireCount(`${name}Begin`, begin, 0);
  requireCount(`${name}Count`, count, 1);
  if (begin + count > end) {
    throw new RangeError(`${name}s ${begin}…${begin + count} lie outside the factor's ${end}`);
  }
}

function requireCount(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new RangeError(`${name} must be a whole number of at least ${least}, got ${value}`);
  }
}
