import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkCut, isKept, magnitudeAt } from '../../../engine/merge/bands/check-cut.ts';
import { type DeltaRows, findCut } from '../../../engine/merge/bands/find-cut.ts';

function rowsOf(values: Float32Array, columns: number, rowsMax: number): DeltaRows {
  return {
    rows: values.length / columns,
    columns,
    rowsMax,
    make: (begin, count) => values.slice(begin * columns, (begin + count) * columns),
  };
}

/** Indices of the largest by magnitude, of equal ones the first. */
function largest(values: Float32Array, keep: number): number[] {
  return [...values.keys()]
    .sort((a, b) => Math.abs(values[b] ?? 0) - Math.abs(values[a] ?? 0) || a - b)
    .slice(0, keep)
    .sort((a, b) => a - b);
}

// Few distinct values: most cuts go through the middle of equal ones.
const element = fc.oneof(
  fc.integer({ min: -3, max: 3 }).map((value) => value / 4),
  fc.constantFrom(1 + 2 ** -23, 1, -1, -(1 + 2 ** -8), 2 ** -149, -(2 ** -140), 3e38, -0),
  fc.float({ noNaN: true, noDefaultInfinity: true }),
);

test('the largest stay, of equal ones the first, exactly as many as were asked for', () => {
  const shape = fc.record({
    rows: fc.integer({ min: 1, max: 40 }),
    columns: fc.integer({ min: 1, max: 9 }),
    rowsMax: fc.integer({ min: 1, max: 12 }),
  });
  const cases = shape.chain((size) =>
    fc.record({
      size: fc.constant(size),
      values: fc.array(element, {
        minLength: size.rows * size.columns,
        maxLength: size.rows * size.columns,
      }),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  );
  fc.assert(
    fc.property(cases, ({ size, values, share }) => {
      const array = Float32Array.from(values);
      const keep = Math.floor(share * array.length);
      const delta = rowsOf(array, size.columns, size.rowsMax);
      const cut = findCut(delta, keep);
      checkCut(delta, cut, keep, 'w');
      const at = magnitudeAt(cut);
      const kept = [...array.keys()].filter((i) => isKept(array[i] ?? 0, i, at, cut));
      // Zeros are the same whether they stay or not.
      const isNotZero = (i: number) => array[i] !== 0;
      expect(kept.filter(isNotZero)).toEqual(largest(array, keep).filter(isNotZero));
    }),
    { numRuns: 500 },
  );
});

test('a cut elsewhere is found out', () => {
  const delta = rowsOf(Float32Array.of(4, 3, -3, 3, 2, -1), 2, 2);
  const cut = findCut(delta, 3);
  expect({ at: magnitudeAt(cut), equalEnd: cut.equalEnd }).toEqual({ at: 3, equalEnd: 3 });
  for (const wrong of [
    { ...cut, equalEnd: 2 },
    { ...cut, equalEnd: 6 },
    { ...cut, bits: cut.bits + 1 },
    { ...cut, bits: cut.bits - 1 },
  ]) {
    expect(() => checkCut(delta, wrong, 3, 'w')).toThrow(/"w".* should/);
  }
});
