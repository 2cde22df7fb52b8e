import {
  type ArenaSpec,
  arenaBytes,
  packedLeftBytes,
  packedRightBytes,
} from '../../kernels/index.ts';
import type { PlannedDelta, PlannedTensor, TensorReference } from '../plan/plan.ts';
import { FIND_CUT_BYTES } from './bands/find-cut.ts';
import { stepBytes } from './bands/step-runner.ts';
import { largestRank } from './row-blocks.ts';
import { bandDeltas, matrixOf, unitsOf } from './tensor-work.ts';
import { unitsPerWindow } from './windows.ts';

/** Factors are staged in pieces of this size, or of one row if a row is longer. */
const FACTOR_BYTES_MAX = 1024 * 1024;

const FLOAT32_BYTES = 4;

/** Bands of rows have this size in float32, or that of one row if a row is longer. */
const BAND_BYTES_MAX = 512 * 1024;

type Sizes = { -readonly [Area in keyof ArenaSpec]: ArenaSpec[Area] };

/**
 * Memory of the kernel that makes windows. Input and output share theirs if no tensor changes its
 * size on the way.
 *
 * @param tensors all that is worked on in it
 * @param outputBytes of a window and what begins before or ends after it
 */
export function windowArena(
  tensors: readonly PlannedTensor[],
  windowBytes: number,
  outputBytes: number,
): ArenaSpec {
  const units = tensors.map((tensor) => ({ tensor, ...unitsOf(tensor) }));
  const isInPlace = units.every((each) => each.inputBytes === each.outputBytes);
  const sizes = isInPlace ? sizesFrom(outputBytes, 0) : sizesFrom(1, outputBytes);
  for (const { tensor, ...each } of units) {
    const count = unitsPerWindow(each, windowBytes);
    if (!isInPlace) grow(sizes, 'inputBytesMax', count * each.inputBytes);
    growForDeltas(sizes, tensor, tensor.deltas ?? [], count);
  }
  return sizes;
}

/** Memory of the kernels that make bands of rows. */
export interface BandArenas {
  /** Of the kernel that adds to the source and rounds at the end. */
  readonly sums: ArenaSpec;
  /** Of each kernel that makes rows of a single delta, if any does. */
  readonly dense: ArenaSpec | undefined;
  /** How many of those there are. */
  readonly denseCount: number;
  /** What steps over the bands keep beside the kernels. */
  readonly stepBytes: number;
}

/** @param tensors all that is made in bands */
export function bandArenas(tensors: readonly PlannedTensor[]): BandArenas | undefined {
  if (tensors.length === 0) return undefined;
  const sums = sizesFrom(1, 1);
  const dense = sizesFrom(1, 0);
  let denseCount = 0;
  let stepBytesMax = 0;
  for (const tensor of tensors) {
    const rows = bandRows(tensor);
    const bytes = rows * matrixOf(tensor).columns * FLOAT32_BYTES;
    const deltas = bandDeltas(tensor);
    grow(sums, 'inputBytesMax', bytes);
    grow(sums, 'outputBytesMax', bytes);
    growForDeltas(sums, tensor, deltas.summed, rows);
    denseCount = Math.max(denseCount, deltas.dense.length);
    stepBytesMax = Math.max(stepBytesMax, stepBytes(tensor, rows));
    for (const delta of deltas.dense) {
      grow(dense, 'inputBytesMax', bytes);
      growForDeltas(dense, tensor, [delta], rows);
    }
  }
  return {
    sums,
    dense: denseCount === 0 ? undefined : dense,
    denseCount,
    stepBytes: stepBytesMax,
  };
}

export function bandArenasBytes({ sums, dense, denseCount, ...steps }: BandArenas): number {
  const denseBytes = dense === undefined ? 0 : denseCount * arenaBytes(dense) + FIND_CUT_BYTES;
  return arenaBytes(sums) + denseBytes + steps.stepBytes;
}

/** Rows that are worked out at once of a tensor that is made in bands. */
export function bandRows(tensor: PlannedTensor): number {
  const { rows, columns } = matrixOf(tensor);
  const rowsMax = Math.floor(BAND_BYTES_MAX / (columns * FLOAT32_BYTES));
  return Math.max(1, Math.min(rows, rowsMax));
}

function sizesFrom(inputBytesMax: number, outputBytesMax: number): Sizes {
  return { inputBytesMax, outputBytesMax, factorBytesMax: 1, leftBytesMax: 1, rightBytesMax: 1 };
}

function grow(sizes: Sizes, area: keyof Sizes, bytes: number): void {
  sizes[area] = Math.max(sizes[area], bytes);
}

function growForDeltas(
  sizes: Sizes,
  tensor: PlannedTensor,
  deltas: readonly PlannedDelta[],
  rows: number,
): void {
  if (deltas.length === 0) return;
  const rank = largestRank({ ...tensor, deltas: [...deltas] });
  grow(sizes, 'leftBytesMax', packedLeftBytes(rows, rank));
  grow(sizes, 'rightBytesMax', packedRightBytes(matrixOf(tensor).columns, rank));
  for (const delta of deltas) {
    const { a, b } = delta;
    const [left, right] = delta.transposed && b !== undefined ? [a, b] : [b, a];
    // Scaled factors are staged in float32.
    const isScaled = delta.rankScale !== undefined || delta.outScale !== undefined;
    const widening = (factor: TensorReference): number =>
      isScaled ? FLOAT32_BYTES / elementBytes(factor) : 1;
    // Rows are staged some at a time; of columns of A, a band of rows at once.
    if (left === undefined) grow(sizes, 'factorBytesMax', FLOAT32_BYTES);
    else if (delta.transposed) {
      grow(sizes, 'factorBytesMax', rows * delta.rank * elementBytes(left) * widening(left));
    } else grow(sizes, 'factorBytesMax', rowsPerPiece(left) * rowBytes(left) * widening(left));
    grow(sizes, 'factorBytesMax', rowsPerPiece(right) * rowBytes(right) * widening(right));
  }
}

/** Rank of the factors of several deltas, packed one behind the other. */
export function totalRank(deltas: readonly PlannedDelta[]): number {
  return deltas.reduce((sum, { rank }) => sum + rank, 0);
}

/** Bytes of one row of a factor as stored. */
export function rowBytes(factor: TensorReference): number {
  return factor.byteLength / (factor.shape[0] ?? 1);
}

export function elementBytes(factor: TensorReference): number {
  return rowBytes(factor) / (factor.shape[1] ?? 1);
}

/** Stored rows of a factor that are staged at once. */
export function rowsPerPiece(factor: TensorReference): number {
  const rows = Math.floor(FACTOR_BYTES_MAX / rowBytes(factor));
  return Math.max(1, Math.min(factor.shape[0] ?? 1, rows));
}
