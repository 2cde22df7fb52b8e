/** Upcasts a factor to f32 and lays it out in panels, so that the k loop reads it in order. */
import { loadScalar } from './dtypes';

/**
 * Packs elements [rankBegin, +rankCount) x [laneBegin, +laneCount) of a factor. A lane is a column
 * of the right factor or a row of the left one. Element (k, lane) goes to
 * `target[lane / width][k][lane % width]`. Strides count elements.
 *
 * Lanes past `lanes` in the last panel are zeroed: what is computed from them is thrown away, but
 * garbage there could send a tile down the scalar path.
 */
export function packPanels<T>(
  source: usize,
  rankStride: usize,
  laneStride: usize,
  target: usize,
  rank: i32,
  lanes: i32,
  rankBegin: i32,
  rankCount: i32,
  laneBegin: i32,
  laneCount: i32,
  width: i32,
): void {
  const laneEnd = laneBegin + laneCount;
  const paddedEnd = laneEnd == lanes ? ((lanes + width - 1) / width) * width : laneEnd;
  let first = laneBegin;
  while (first < paddedEnd) {
    const panel = first / width;
    const end = min((panel + 1) * width, paddedEnd);
    for (let k = 0; k < rankCount; k++) {
      const panelRow = target + (((<usize>panel * rank + rankBegin + k) * width) << 2);
      const sourceRow = source + <usize>k * rankStride * sizeof<T>();
      for (let lane = first; lane < end; lane++) {
        const at = panelRow + (<usize>(lane - panel * width) << 2);
        const from = sourceRow + <usize>(lane - laneBegin) * laneStride * sizeof<T>();
        store<f32>(at, lane < laneEnd ? loadScalar<T>(from) : 0);
      }
    }
    first = end;
  }
}
