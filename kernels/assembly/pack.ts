/** Upcasts a factor to f32 and lays it out in panels, so that the k loop reads it in order. */
import { decodeElements } from './decode';
import { loadScalar } from './dtypes';
import { stripF32 } from './strip';
import { slotOf, STRIP_COLS, TILE_COLS } from './tile';

/**
 * Packs elements [rankBegin, +rankCount) x [laneBegin, +laneCount) of a factor. A lane is a column
 * of the right factor or a row of the left one. Element (k, lane) goes to
 * `target[lane / width][k][lane % width]`, in panels of eight to the place of `slotOf`. Strides count elements.
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
  for (let i = 0; i < count; i++) {
    const value = loadScalar<T>(source + <usize>i * stride * sizeof<T>());
    store<f32>(stripF32 + (<usize>slotOf(i) << 2), value);
  }
}

/** From the strip to lanes [lane, +count) of one k. */
function scatterLanes(target: usize, panelBytes: usize, lane: i32, count: i32, width: i32): void {
  let i = 0;
  if (width == TILE_COLS && lane % TILE_COLS == 0) {
    for (let to = target + <usize>(lane / width) * panelBytes; i + TILE_COLS <= count; ) {
      const from = stripF32 + (<usize>i << 2);
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
      to += panelBytes;
      i += TILE_COLS;
    }
  }
  for (; i < count; i++) {
    const panel = (lane + i) / width, within = (lane + i) % width;
    const slot = width == TILE_COLS ? slotOf(within) : within;
    const to = target + <usize>panel * panelBytes + (<usize>slot << 2);
    store<f32>(to, load<f32>(stripF32 + (<usize>slotOf(i) << 2)));
  }
}
