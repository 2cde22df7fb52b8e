import { combinedFactorBytes } from '../plan/combine-deltas.ts';
import type { PlannedDelta, PlannedShard, PlannedTensor, TensorReference } from '../plan/plan.ts';

/** The input that holds combined factors; no adapter has such an id. */
export const COMBINED_INPUT = ':combined';

/**
 * A shard as it is merged once the factors of combined deltas are in a file of their own: each of its
 * tensors has plain deltas.
 *
 * @param file its name; factors follow one another in it, A before B, tensor after tensor
 */
export function combinedShard(shard: PlannedShard, file: string): PlannedShard {
  let offset = 0;
  const place = (byteLength: number, shape: number[]): TensorReference => {
    const begin = offset;
    offset += byteLength;
    return { input: COMBINED_INPUT, file, offset: begin, byteLength, dtype: 'F32', shape };
  };
  const tensors = shard.tensors.map((tensor): PlannedTensor => {
    const { combined, ...plain } = tensor;
    const [first] = tensor.deltas ?? [];
    if (combined === undefined || first === undefined) return tensor;
    const { rank } = combined;
    const bytes = combinedFactorBytes(tensor);
    const delta: PlannedDelta = {
      adapter: COMBINED_INPUT,
      module: first.module,
      a: place(bytes.a, [rank, bytes.a / 4 / rank]),
      b: place(bytes.b, [bytes.b / 4 / rank, rank]),
      rank,
      alpha: rank,
      scaling: 1,
      transposed: first.transposed,
    };
    return { ...plain, deltas: [delta] };
  });
  return { ...shard, tensors };
}
