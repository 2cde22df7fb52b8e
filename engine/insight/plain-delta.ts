import type { PlannedDelta, PlannedTensor } from '../plan/plan.ts';
import { elementCount } from '../safetensors/dtype.ts';
import type { Factor } from './factor-products.ts';

/** All that a plan says of a plain `scaling · B A`. */
const PLAIN_KEYS: ReadonlySet<string> = new Set<keyof PlannedDelta>([
  ...(['adapter', 'module', 'a', 'b', 'rank', 'alpha', 'scaling', 'transposed'] as const),
]);

/**
 * The deltas of a tensor that are products of two factors over all of it and no more, so that their
 * scalar products can be worked out from the factors. What a plan says beyond that of a delta
 * (DoRA's magnitude, say) would be passed over: such a delta is none of them.
 */
export function plainDeltas({ deltas = [], shape }: PlannedTensor): readonly PlannedDelta[] {
  const columns = shape.at(-1) ?? 1;
  const rows = elementCount(shape) / columns;
  return deltas.filter((delta) => {
    const known = Object.entries(delta).filter(([, value]) => value !== undefined);
    const ofA = delta.transposed && delta.b !== undefined ? rows : columns;
    return (
      known.every(([key]) => PLAIN_KEYS.has(key)) &&
      delta.transposed === deltas[0]?.transposed &&
      factorA(delta).extent === ofA &&
      (factorB(delta)?.extent ?? 1) * ofA === rows * columns
    );
  });
}

/** Its `lora_A`; of a bias, the bias as one row. */
export function factorA({ a, rank }: PlannedDelta): Factor {
  return { tensor: a, rank, extent: a.shape[1] ?? 0, isRankFirst: true };
}

/** Its `lora_B`; a bias has none. */
export function factorB({ b, rank }: PlannedDelta): Factor | undefined {
  return b && { tensor: b, rank, extent: b.shape[0] ?? 0, isRankFirst: false };
}
