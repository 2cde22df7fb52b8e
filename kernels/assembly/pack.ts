/** Upcasts a factor to f32 and lays it out in panels, so that the k loop reads it in order. */
import { decodeElements } from './decode';
import { loadScalar } from './dtypes';
import { stripF32 } from './strip';
import { STRIP_COLS } from './tile';

/**
 * Packs elements [rankBegin, +rankCount) x [laneBegin, +laneCount) of a factor. A lane is a column
 * of the right factor or a row of the left one. Element (k, lane) goes to
 * `target[lane / width][k][lane % width]`. Strides count elements.
 *
 * Lanes past the last of the factor keep what was there: what is computed from them is not stored.
 */
export function packPanels<T>(
  source: usize, rankStride: usize, laneStride: usize, target: usize, rank: i32,
  rankBegin: i32, rankCount: i32, laneBegin: i32, laneCount: i32, width: i32,
): void {
  for (let done = 0; done < laneCount; done += STRIP_COLS) {
    const count = min(STRIP_COLS, laneCount - done);
    const first = source + <usize>done * laneStride * sizeof<T>();
    for (let k = 0; k < rankCount; k++) {
      const from = first + <usize>k * rankStride * sizeof<T>();
      if (laneStride == 1) decodeElements<T>(from, stripF32, count);
      else gatherElements<T>(from, laneStride, count);
      const to = target + (<usize>(rankBegin + k) * width << 2);
      scatterLanes(to, <usize>rank * width << 2, laneBegin + done, count, width);
    }
  }
}

/** Every `stride`-th element as f32, into the strip. */
function gatherElements<T>(source: usize, stride: usize, count: i32): void {
  const strideBytes = stride * sizeof<T>();
  const end = stripF32 + <usize>count * 4;
  for (let to = stripF32; to < end; to += 4) {
    store<f32>(to, loadScalar<T>(source));
    source += strideBytes;
  }
}

/** From the strip to lanes [lane, +count) of one k. */
function scatterLanes(target: usize, panelBytes: usize, lane: i32, count: i32, width: i32): void {
  const end = stripF32 + <usize>count * 4;
  const widthBytes = <usize>width * 4;
  let to = target + <usize>(lane / width) * panelBytes;
  let within = <usize>(lane % width) * 4;
  let from = stripF32;
  while (from < end) {
    if (within == 0 && from + widthBytes <= end) {
      for (; within < widthBytes; within += 16) v128.store(to + within, v128.load(from + within));
      from += widthBytes;
    } else {
      for (; within < widthBytes && from < end; within += 4) {
        store<f32>(to + within, load<f32>(from));
        from += 4;
      }
    }
    within = 0;
    to += panelBytes;
  }
}
