import type { CombinedDeltas } from '../plan/plan.ts';
import type { ExactFactors } from './combined-rows.ts';

const { fround } = Math;

/** Bits of the largest finite float32. */
const F32_BITS_MAX = 0x7f7f_ffff;

/** An element of a combined factor, and the sum of the magnitudes it is made of. */
interface CombinedElement {
  readonly value: number;
  readonly magnitude: number;
}

interface ElementCombiner {
  readonly count: number;
  /** @param index in the combined factor as stored */
  at(index: number): CombinedElement;
}

/**
 * The elements of a factor that PEFT's methods make of those of several adapters, worked out from the
 * definition one by one, in float64: what is kept by counting, not by sorting.
 */
export function elementCombiner(
  combined: CombinedDeltas,
  factors: readonly ExactFactors[],
  side: 'a' | 'b',
): ElementCombiner {
  const tensors = factors.map((each) => each[side]);
  const count = tensors[0]?.length ?? 0;
  const kept = tensors.map((values) => keptPlaces(values, combined.density));
  const weights = factors.map(({ scaling }) => {
    const root = Math.sqrt(Math.abs(scaling));
    return side === 'a' ? Math.sign(scaling) * root : root;
  });
  const at = (index: number): CombinedElement => {
    const values = tensors.map((values, t) => (kept[t]![index] === 1 ? values[index]! : 0));
    const used = combined.method === 'peft_ties' ? agreeing(values, combined) : values;
    const terms = used.map((value, t) => value * weights[t]!);
    const nonZero = used.filter((value) => value !== 0).length;
    const divisor = combined.method === 'peft_ties' ? Math.max(nonZero, 1) : 1;
    const sum = terms.reduce((total, term) => total + term, 0);
    const magnitude = terms.reduce((total, term) => total + Math.abs(term), 0);
    return { value: sum / divisor, magnitude: magnitude / divisor };
  };
  return { count, at };
}

/** Values that have the elected sign; the others become zero. */
function agreeing(values: readonly number[], { majoritySign }: CombinedDeltas): number[] {
  const votes = majoritySign === 'frequency' ? values.map(Math.sign) : values;
  // A sum in float32 is part of the definition: it can come out as zero.
  const majority = votes.reduce((sum, vote) => fround(sum + vote), 0);
  return values.map((value) => (majority >= 0 === value > 0 ? value : 0));
}

/** 1 for each of the `int(density · n)` largest magnitudes, the first ones among equals. */
function keptPlaces(values: Float64Array, density = 1): Uint8Array {
  const places = new Uint8Array(values.length);
  const wanted = Math.floor(density * values.length);
  const bits = new Uint32Array(Float32Array.from(values, Math.abs).buffer);
  const atLeast = (limit: number): number =>
    bits.reduce((count, each) => count + (each >= limit ? 1 : 0), 0);
  // The largest limit that enough magnitudes reach: magnitudes are ordered as their bits are.
  let [low, high] = [0, F32_BITS_MAX + 1];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (atLeast(middle) >= wanted) low = middle;
    else high = middle;
  }
  let equals = wanted - atLeast(low + 1);
  for (const [i, each] of bits.entries()) {
    if (each > low || (each === low && equals-- > 0)) places[i] = 1;
  }
  return places;
}
