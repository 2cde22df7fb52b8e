import { assert } from '../../errors.ts';
import type { PlannedDelta, PlannedTensor, TensorCombination } from '../../plan/plan.ts';
import type { Band, DenseRows } from './dense-deltas.ts';
import type { Cut } from './find-cut.ts';
import { dropAtRandom, randomKeyOf } from './random-choice.ts';

const MAGNITUDE = 0x7fff_ffff;

/**
 * Combines deltas that are thinned out, element by element, as PEFT's `merge_utils` do, but of the
 * whole deltas dᵢ = scalingᵢ · Bᵢ Aᵢ (PEFT does it with A and with B, each by itself):
 *
 * - tᵢ is dᵢ where it stays and 0 elsewhere. `magnitude_prune` and `ties` keep the ⌊density · n⌋
 *   largest of the tensor's n elements by |dᵢ|, of equal ones the first (`find-cut.ts`); with DARE
 *   each stays with the probability `density`, and is divided by it (`random-choice.ts`).
 * - `magnitude_prune`, `dare_linear`: W + Σ weightᵢ · tᵢ.
 * - `ties`, `dare_ties`: the elected sign is that of Σ tᵢ (`total`) or of Σ sign(tᵢ) (`frequency`),
 *   without weights, and + where that is 0. W + (Σ weightᵢ · tᵢ over all i whose tᵢ has the elected
 *   sign) / how many those are.
 *
 * dᵢ is rounded to float32 (it decides what stays); all else is done in float64 and rounded to
 * float32 once, before the last rounding to the dtype.
 *
 * @param source W, [rows, columns]
 * @param dense dᵢ of those rows; what does not stay of them is set to zero here
 * @param cuts of each delta, where the largest are kept
 * @param values where the result goes; may be `source`
 */
export function combineRows(
  tensor: PlannedTensor,
  band: Band,
  source: Float32Array,
  dense: readonly DenseRows[],
  cuts: readonly Cut[],
  values: Float32Array,
): void {
  const { combination, deltas = [] } = tensor;
  assert(combination !== undefined, `${tensor.name} is a sum`);
  const rows = dense.map((each) => each.values);
  const begin = band.begin * band.columns;
  for (const [index, row] of rows.entries()) {
    const { density } = combination.parts[index]!;
    if (density === 1) continue;
    if (!isRandom(combination)) dropSmall(row, begin, cuts[index]!);
    else dropAtRandom(row, begin, keyOf(tensor, combination, deltas[index]!), density);
  }
  const rescales = combination.parts.map(({ density }) => (isRandom(combination) ? density : 1));
  const factors = combination.parts.map(({ weight }, index) => weight / rescales[index]!);
  if (combination.majoritySign === undefined) addUp(source, rows, factors, values);
  else {
    const voices =
      combination.majoritySign === 'total' ? rescales.map((one) => 1 / one) : undefined;
    elect(source, rows, factors, voices, values);
  }
}

export function isRandom({ method }: Pick<TensorCombination, 'method'>): boolean {
  return method === 'dare_linear' || method === 'dare_ties';
}

function keyOf(tensor: PlannedTensor, { seed }: TensorCombination, { adapter }: PlannedDelta) {
  assert(seed !== undefined, `${tensor.name} has no seed`);
  return randomKeyOf(seed, adapter, tensor.name);
}

/**
 * Without branches, which would be mispredicted most of the time: a magnitude less than the limit
 * gives a negative difference, whose sign makes the mask that clears it.
 *
 * @param begin index of the first value in the flattened delta
 */
function dropSmall(values: Float32Array, begin: number, { bits, equalEnd }: Cut): void {
  const stored = new Int32Array(values.buffer, values.byteOffset, values.length);
  const equal = Math.max(0, Math.min(stored.length, equalEnd - begin));
  for (let i = 0; i < equal; i++) stored[i]! &= ~(((stored[i]! & MAGNITUDE) - bits) >> 31);
  const above = bits + 1;
  for (let i = equal; i < stored.length; i++) {
    stored[i]! &= ~(((stored[i]! & MAGNITUDE) - above) >> 31);
  }
}

/** Elements are combined so many at a time: their sums stay in the first cache. */
const BLOCK = 1024;

function addUp(
  source: Float32Array,
  rows: readonly Float32Array[],
  factors: readonly number[],
  values: Float32Array,
): void {
  const sums = new Float64Array(BLOCK);
  for (let begin = 0; begin < values.length; begin += BLOCK) {
    const count = Math.min(BLOCK, values.length - begin);
    sums.fill(0);
    for (const [one, row] of rows.entries()) addTo(sums, row, begin, count, factors[one]!);
    for (let i = 0; i < count; i++) values[begin + i] = source[begin + i]! + sums[i]!;
  }
}

/** @param voices what each value counts in the election times its size; or only its sign counts */
function elect(
  source: Float32Array,
  rows: readonly Float32Array[],
  factors: readonly number[],
  voices: readonly number[] | undefined,
  values: Float32Array,
): void {
  const sums = new Float64Array(BLOCK);
  const counts = new Int32Array(BLOCK);
  // Of the votes in float32 the signs are needed, which rounding keeps.
  const votes = new Float32Array(BLOCK);
  const signs = new Int32Array(votes.buffer);
  const stored = rows.map((row) => new Int32Array(row.buffer, row.byteOffset, row.length));
  for (let begin = 0; begin < values.length; begin += BLOCK) {
    const count = Math.min(BLOCK, values.length - begin);
    sums.fill(0);
    for (const [one, row] of rows.entries()) {
      if (voices === undefined) addSigns(sums, row, begin, count);
      else addTo(sums, row, begin, count, voices[one]!);
    }
    for (let i = 0; i < count; i++) votes[i] = sums[i]!;
    sums.fill(0);
    counts.fill(0);
    for (const [one, row] of rows.entries()) {
      dropOutvoted(stored[one]!, signs, begin, count, counts);
      addTo(sums, row, begin, count, factors[one]!);
    }
    addMeans(source, sums, counts, begin, count, values);
  }
}

function addMeans(
  source: Float32Array,
  sums: Float64Array,
  counts: Int32Array,
  begin: number,
  count: number,
  values: Float32Array,
): void {
  for (let i = 0; i < count; i++) {
    values[begin + i] = source[begin + i]! + sums[i]! / Math.max(1, counts[i]!);
  }
}

/**
 * Clears what has another sign than the elected one, which is + for votes of 0, and counts what is
 * left. Without branches too: signs that differ make a mask, and the count is the carry of a sum.
 */
function dropOutvoted(
  stored: Int32Array,
  signs: Int32Array,
  begin: number,
  count: number,
  counts: Int32Array,
): void {
  for (let i = 0; i < count; i++) {
    const bits = stored[begin + i]!;
    const kept = bits & ~((bits ^ signs[i]!) >> 31);
    stored[begin + i] = kept;
    counts[i]! += (((kept & MAGNITUDE) + MAGNITUDE) | 0) >>> 31;
  }
}

function addTo(
  sums: Float64Array,
  row: Float32Array,
  begin: number,
  count: number,
  factor: number,
): void {
  for (let i = 0; i < count; i++) sums[i]! += factor * row[begin + i]!;
}

function addSigns(votes: Float64Array, row: Float32Array, begin: number, count: number): void {
  for (let i = 0; i < count; i++) votes[i]! += Math.sign(row[begin + i]!);
}
