/** The exports of the module: each picks the specialisation for its element types. */
import { castElements, countElements } from './convert';
import { BF16, CODE_BF16, CODE_F16, F16, F32 } from './dtypes';
import { mergeBand } from './merge';
import { packPanels } from './pack';
import { segmentTable } from './segments';

/** First byte that the module itself does not use; areas must lie beyond it. */
export function staticEnd(): usize {
  return __heap_base;
}

/** Where `merge` expects its segments; see `segments.ts` for the layout. */
export function segmentTableBegin(): usize {
  return segmentTable;
}

export function pack(
  source: usize, rankStride: usize, laneStride: usize, target: usize, rank: i32,
  rankBegin: i32, rankCount: i32, laneBegin: i32, laneCount: i32, width: i32, dtype: i32,
): void {
  if (dtype == CODE_BF16) {
    packPanels<BF16>(source, rankStride, laneStride, target, rank,
      rankBegin, rankCount, laneBegin, laneCount, width);
  } else if (dtype == CODE_F16) {
    packPanels<F16>(source, rankStride, laneStride, target, rank,
      rankBegin, rankCount, laneBegin, laneCount, width);
  } else {
    packPanels<F32>(source, rankStride, laneStride, target, rank,
      rankBegin, rankCount, laneBegin, laneCount, width);
  }
}

export function merge(
  input: usize, output: usize, left: usize, right: usize,
  rows: i32, cols: i32, rank: i32, segments: i32, dtypeIn: i32, dtypeOut: i32,
): i32 {
  if (dtypeIn == CODE_BF16) {
    return mergeTo<BF16>(input, output, left, right, rows, cols, rank, segments, dtypeOut);
  }
  if (dtypeIn == CODE_F16) {
    return mergeTo<F16>(input, output, left, right, rows, cols, rank, segments, dtypeOut);
  }
  return mergeTo<F32>(input, output, left, right, rows, cols, rank, segments, dtypeOut);
}

function mergeTo<In>(
  input: usize, output: usize, left: usize, right: usize,
  rows: i32, cols: i32, rank: i32, segments: i32, dtypeOut: i32,
): i32 {
  if (dtypeOut == CODE_BF16) {
    return mergeBand<In, BF16>(input, output, left, right, rows, cols, rank, segments);
  }
  if (dtypeOut == CODE_F16) {
    return mergeBand<In, F16>(input, output, left, right, rows, cols, rank, segments);
  }
  return mergeBand<In, F32>(input, output, left, right, rows, cols, rank, segments);
}

export function cast(input: usize, output: usize, count: i32, dtypeIn: i32, dtypeOut: i32): i32 {
  if (dtypeIn == CODE_BF16) return castTo<BF16>(input, output, count, dtypeOut);
  if (dtypeIn == CODE_F16) return castTo<F16>(input, output, count, dtypeOut);
  return castTo<F32>(input, output, count, dtypeOut);
}

function castTo<In>(input: usize, output: usize, count: i32, dtypeOut: i32): i32 {
  if (dtypeOut == CODE_BF16) return castElements<In, BF16>(input, output, count);
  if (dtypeOut == CODE_F16) return castElements<In, F16>(input, output, count);
  return castElements<In, F32>(input, output, count);
}

export function countNonFinite(input: usize, count: i32, dtype: i32): i32 {
  if (dtype == CODE_BF16) return countElements<BF16>(input, count);
  if (dtype == CODE_F16) return countElements<F16>(input, count);
  return countElements<F32>(input, count);
}
