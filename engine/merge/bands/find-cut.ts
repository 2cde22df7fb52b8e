import { assert } from '../../errors.ts';

/**
 * Which elements of a delta are the largest by magnitude: those above `bits`, and of those equal to
 * it the ones before element `equalEnd`. So exactly as many stay as were asked for.
 */
export interface Cut {
  /** Of a magnitude in float32, as an integer: these are in the order of the magnitudes. */
  readonly bits: number;
  /** An index into the flattened delta. */
  readonly equalEnd: number;
}

/** A whole delta, as its rows in float32, some at a time: the array is good until the next call. */
export interface DeltaRows {
  readonly rows: number;
  readonly columns: number;
  /** How many rows are made at once at most. */
  readonly rowsMax: number;
  /** @returns [count, columns] */
  readonly make: (begin: number, count: number) => Float32Array;
}

const MAGNITUDE = 0x7fff_ffff;
const INFINITY = 0x7f80_0000;

/** The upper 16 bits of a magnitude decide in the first pass, the lower 15 in the second. */
const LOW_BITS = 15;
const LOW_COUNT = 1 << LOW_BITS;
const HIGH_COUNT = 1 << 16;

/** Equal elements are counted by part of the delta: to find one of them takes one part again. */
const PARTS = 16;

/** What finding a cut takes beside the rows: two tables of counts. */
export const FIND_CUT_BYTES = 4 * (HIGH_COUNT + PARTS * LOW_COUNT);

/**
 * Finds the `keep` largest elements by magnitude (of equal ones the first) in two passes over the
 * delta, which is never held as a whole: how many magnitudes have which upper bits, then, of those
 * with the upper bits of the smallest that stays, how many have which lower ones.
 */
export function findCut(delta: DeltaRows, keep: number): Cut {
  const { rows, columns } = delta;
  const count = rows * columns;
  assert(keep >= 0 && keep <= count && count < 2 ** 32, `${keep} of ${count} elements`);
  if (keep === 0) return { bits: INFINITY, equalEnd: 0 };
  if (keep === count) return { bits: 0, equalEnd: count };
  const high = fromTop(countHigh(delta), keep);
  const rowsPerPart = Math.ceil(rows / PARTS);
  const counts = countLow(delta, high.value, rowsPerPart);
  const sums = new Uint32Array(LOW_COUNT);
  for (let i = 0; i < counts.length; i++) sums[i % LOW_COUNT]! += counts[i]!;
  const low = fromTop(sums, high.left);
  const bits = high.value * LOW_COUNT + low.value;
  // All that are equal stay; a zero is the same whether it stays or not.
  if (low.left === sums[low.value] || bits === 0) return { bits, equalEnd: count };
  let left = low.left;
  let part = 0;
  while (counts[part * LOW_COUNT + low.value]! < left) {
    left -= counts[part * LOW_COUNT + low.value]!;
    part += 1;
  }
  return { bits, equalEnd: endOfEqual(delta, bits, part * rowsPerPart, left) };
}

/** Goes down from the largest value until `left` elements were seen. */
function fromTop(
  counts: Uint32Array,
  keep: number,
): { readonly value: number; readonly left: number } {
  let left = keep;
  let value = counts.length - 1;
  while (counts[value]! < left) {
    left -= counts[value]!;
    value -= 1;
  }
  return { value, left };
}

function* bandsOf(delta: DeltaRows, from = 0): Generator<{ begin: number; bits: Int32Array }> {
  for (let begin = from; begin < delta.rows; begin += delta.rowsMax) {
    const values = delta.make(begin, Math.min(delta.rowsMax, delta.rows - begin));
    yield { begin, bits: new Int32Array(values.buffer, values.byteOffset, values.length) };
  }
}

function countHigh(delta: DeltaRows): Uint32Array {
  const counts = new Uint32Array(HIGH_COUNT);
  for (const { bits } of bandsOf(delta)) {
    for (let i = 0; i < bits.length; i++) counts[(bits[i]! & MAGNITUDE) >>> LOW_BITS]!++;
  }
  return counts;
}

/** @returns [PARTS, LOW_COUNT] */
function countLow(delta: DeltaRows, high: number, rowsPerPart: number): Uint32Array {
  const { columns } = delta;
  const counts = new Uint32Array(PARTS * LOW_COUNT);
  for (const { begin, bits } of bandsOf(delta)) {
    for (let place = 0; place < bits.length; place += columns) {
      const part = Math.floor((begin + place / columns) / rowsPerPart) * LOW_COUNT;
      for (let i = place; i < place + columns; i++) {
        const magnitude = bits[i]! & MAGNITUDE;
        if (magnitude >>> LOW_BITS === high) counts[part + (magnitude & (LOW_COUNT - 1))]!++;
      }
    }
  }
  return counts;
}

/** The index after the `wanted`-th element of a magnitude, from a row on. */
function endOfEqual(delta: DeltaRows, magnitude: number, fromRow: number, wanted: number): number {
  let left = wanted;
  for (const { begin, bits } of bandsOf(delta, fromRow)) {
    for (let i = 0; i < bits.length; i++) {
      if ((bits[i]! & MAGNITUDE) !== magnitude) continue;
      left -= 1;
      if (left === 0) return begin * delta.columns + i + 1;
    }
  }
  throw new RangeError('a delta changed while it was counted');
}
