import { type ArenaSpec, packedLeftBytes, packedRightBytes } from '../../kernels/index.ts';
import type { PlannedDelta, PlannedTensor, TensorReference } from '../plan/plan.ts';
import { largestRank } from './row-blocks.ts';
import { matrixOf, unitsOf } from './tensor-work.ts';
import { unitsPerWindow } from './windows.ts';

/** Factors are staged in pieces of this size, or of one row if a row is longer. */
const FACTOR_BYTES_MAX = 1024 * 1024;

const FLOAT32_BYTES = 4;

/** DoRA takes bands of rows of this size in float32, or of one row if a row is longer. */
const DORA_BAND_BYTES_MAX = 512 * 1024;

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
    growForDelta(sizes, tensor, count);
  }
  return sizes;
}

/** Memory of the kernel that works a band of rows out in float32, and then casts it. */
export function doraArena(tensors: readonly PlannedTensor[]): ArenaSpec | undefined {
  if (tensors.length === 0) return undefined;
  const sizes = sizesFrom(1, 1);
  for (const tensor of tensors) {
    const rows = doraBandRows(tensor);
    const bytes = rows * matrixOf(tensor).columns * FLOAT32_BYTES;
    grow(sizes, 'inputBytesMax', bytes);
    grow(sizes, 'outputBytesMax', bytes);
    growForDelta(sizes, tensor, rows);
  }
  return sizes;
}

/** Rows that DoRA works out at once. */
export function doraBandRows(tensor: PlannedTensor): number {
  const { rows, columns } = matrixOf(tensor);
  const rowsMax = Math.floor(DORA_BAND_BYTES_MAX / (columns * FLOAT32_BYTES));
  return Math.max(1, Math.min(rows, rowsMax));
}

function sizesFrom(inputBytesMax: number, outputBytesMax: number): Sizes {
  return { inputBytesMax, outputBytesMax, factorBytesMax: 1, leftBytesMax: 1, rightBytesMax: 1 };
}

function grow(sizes: Sizes, area: keyof Sizes, bytes: number): void {
  sizes[area] = Math.max(sizes[area], bytes);
}

function growForDelta(sizes: Sizes, tensor: PlannedTensor, rows: number): void {
  const deltas = tensor.deltas ?? [];
  if (deltas.length === 0) return;
  const rank = largestRank(tensor);
  grow(sizes, 'leftBytesMax', packedLeftBytes(rows, rank));
  grow(sizes, 'rightBytesMax', packedRightBytes(matrixOf(tensor).columns, rank));
  for (const delta of deltas) {
    const { a, b } = delta;
    const [left, right] = delta.transposed && b !== undefined ? [a, b] : [b, a];
    // Rows are staged some at a time; of columns of A, a band of rows at once.
    if (left === undefined) grow(sizes, 'factorBytesMax', FLOAT32_BYTES);
    else if (delta.transposed)
      grow(sizes, 'factorBytesMax', rows * delta.rank * elementBytes(left));
    else grow(sizes, 'factorBytesMax', rowsPerPiece(left) * rowBytes(left));
    grow(sizes, 'factorBytesMax', rowsPerPiece(right) * rowBytes(right));
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
