import type { PlannedShard, PlannedTensor } from '../plan/plan.ts';
import { unitsOf, type WorkUnits } from './tensor-work.ts';

/** Direct I/O takes offsets and lengths in multiples of this: the largest block in use is 4 KiB. */
export const PAGE_BYTES = 4096;

/** A range of bytes of the output shard. */
export interface ByteRange {
  readonly begin: number;
  readonly end: number;
}

/**
 * The range of the shard that is made and written at once. Windows are cut from the *file*, at
 * multiples of the page size, because direct I/O takes nothing else; a row that lies across an edge
 * is worked out for both windows.
 */
export interface WindowCut {
  /** Where the first window begins: 0, or where an earlier attempt stopped. */
  readonly begin: number;
  readonly windowBytes: number;
  readonly size: number;
}

export function windowCount({ begin, windowBytes, size }: WindowCut): number {
  return Math.ceil((size - begin) / windowBytes);
}

export function windowAt({ begin, windowBytes, size }: WindowCut, index: number): ByteRange {
  const start = begin + index * windowBytes;
  return { begin: start, end: Math.min(size, start + windowBytes) };
}

/** The units of a tensor that a window touches. */
export interface Piece {
  /** Index of the tensor in its shard. */
  readonly tensor: number;
  /** First unit and the one after the last. */
  readonly begin: number;
  readonly end: number;
}

/** What has to be made for a window, in file order: whole units, so also some bytes beside it. */
export function piecesOf(shard: PlannedShard, window: ByteRange): Piece[] {
  const pieces: Piece[] = [];
  for (let index = firstEndingAfter(shard, window.begin); index < shard.tensors.length; index++) {
    const tensor = shard.tensors[index] as PlannedTensor;
    if (tensor.offset >= window.end) break;
    if (tensor.byteLength === 0) continue;
    const { count, outputBytes } = unitsOf(tensor);
    const begin = Math.max(0, Math.floor((window.begin - tensor.offset) / outputBytes));
    const end = Math.min(count, Math.ceil((window.end - tensor.offset) / outputBytes));
    pieces.push({ tensor: index, begin, end });
  }
  return pieces;
}

/** The bytes of a piece in the output shard; they may reach beyond its window on both sides. */
export function outputRange(shard: PlannedShard, piece: Piece): ByteRange {
  const tensor = shard.tensors[piece.tensor] as PlannedTensor;
  const { outputBytes } = unitsOf(tensor);
  return {
    begin: tensor.offset + piece.begin * outputBytes,
    end: tensor.offset + piece.end * outputBytes,
  };
}

/** Index of the first tensor with bytes beyond `position`: tensors are in file order. */
export function firstEndingAfter(shard: PlannedShard, position: number): number {
  let low = 0;
  let high = shard.tensors.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const { offset, byteLength } = shard.tensors[middle] as PlannedTensor;
    if (offset + byteLength <= position) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The most units of a tensor that a window of `windowBytes` can touch. */
export function unitsPerWindow({ count, outputBytes }: WorkUnits, windowBytes: number): number {
  return Math.min(count, Math.ceil(windowBytes / Math.max(1, outputBytes)) + 1);
}
