import { isKept, magnitudeAt } from '../merge/bands/check-cut.ts';
import { isRandom } from '../merge/bands/combine-rows.ts';
import type { Cut } from '../merge/bands/find-cut.ts';
import { isChosen, randomKeyOf } from '../merge/bands/random-choice.ts';
import type { PlannedTensor, TensorCombination } from '../plan/plan.ts';

const F32_UNIT = 2 ** -24;
const F64_UNIT = 2 ** -53;

/** A row of one delta, of a tensor whose deltas are combined and not just added up. */
export interface ThinnedTerm {
  readonly adapter: string;
  /** `scaling · L R` in float64, by the same sums as the kernel's. */
  readonly values: Float64Array;
}

/**
 * A row of what `combineRows` makes, in float64 and element by element.
 *
 * @param cuts of each delta, where the largest are kept
 * @returns the row, and how far from it one rounding to float32 may come
 */
export function thinnedRow(
  tensor: PlannedTensor & { readonly combination: TensorCombination },
  row: number,
  base: Float64Array,
  terms: readonly ThinnedTerm[],
  cuts: readonly Cut[],
): { readonly exact: Float64Array; readonly bound: Float64Array } {
  const exact = new Float64Array(base.length);
  const bound = new Float64Array(base.length);
  const stays = terms.map((term, one) => chooser(tensor, term, one, cuts));
  const { parts } = tensor.combination;
  for (const column of base.keys()) {
    const index = row * base.length + column;
    const left = terms.map(({ values }, one) => {
      const value = Math.fround(values[column]!);
      if (!stays[one]!(value, index)) return 0;
      return isRandom(tensor.combination) ? value / parts[one]!.density : value;
    });
    const added = combineElement(left, tensor.combination);
    const weight = base[column]!;
    exact[column] = weight + added;
    const sizes = left.reduce((sum, value, one) => sum + Math.abs(value * parts[one]!.weight), 0);
    const roundings = 8 * F64_UNIT * (Math.abs(weight) + sizes);
    bound[column] = F32_UNIT * Math.abs(exact[column]!) + roundings + 2 ** -149;
  }
  return { exact, bound };
}

function chooser(
  { name, combination }: PlannedTensor & { readonly combination: TensorCombination },
  { adapter }: ThinnedTerm,
  one: number,
  cuts: readonly Cut[],
): (value: number, index: number) => boolean {
  const { density } = combination.parts[one]!;
  if (density === 1) return () => true;
  if (isRandom(combination)) {
    const key = randomKeyOf(combination.seed ?? 0, adapter, name);
    return (_value, index) => isChosen(index, key, density);
  }
  const cut = cuts[one]!;
  const at = magnitudeAt(cut);
  return (value, index) => isKept(value, index, at, cut);
}

/** One element of all deltas, thinned out, in one. */
function combineElement(
  values: readonly number[],
  { majoritySign, parts }: TensorCombination,
): number {
  const weighted = values.map((value, one) => value * parts[one]!.weight);
  if (majoritySign === undefined) return weighted.reduce((sum, value) => sum + value, 0);
  const voices = majoritySign === 'total' ? values : values.map(Math.sign);
  const elected = voices.reduce((sum, voice) => sum + voice, 0) >= 0 ? 1 : -1;
  const agreeing = weighted.filter((_, one) => Math.sign(values[one]!) === elected);
  return agreeing.reduce((sum, value) => sum + value, 0) / Math.max(agreeing.length, 1);
}
