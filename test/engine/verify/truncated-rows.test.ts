import { describe, expect, test } from 'vitest';
import type { PlannedDelta, PlannedTensor, TensorReference } from '../../../engine/plan/plan.ts';
import { truncatedRows } from '../../../engine/verify/truncated-rows.ts';

const SIZE = 4;

/** A delta of rank 1: values of A and B. */
type Pair = readonly [a: readonly number[], b: readonly number[]];

/** 3 along the first axis, 2 along the second. */
const AXES: readonly Pair[] = [
  [
    [3, 0, 0, 0],
    [1, 0, 0, 0],
  ],
  [
    [0, 2, 0, 0],
    [0, 1, 0, 0],
  ],
];
const NOTHING = [0, 0, 0, 0];

/**
 * The rows of a sum of rank 1 deltas.
 * @param merged what the factors were worked out from, if that is something else
 */
function rowsOf(sum: readonly Pair[], { transposed = false, merged = sum } = {}) {
  const stored = new Map<TensorReference, Uint8Array>();
  const refer = (values: readonly number[], shape: number[]): TensorReference => {
    const reference = { input: 'a', file: 'f', offset: 0, byteLength: 16, dtype: 'F32', shape };
    stored.set(reference as TensorReference, new Uint8Array(Float32Array.from(values).buffer));
    return reference as TensorReference;
  };
  const deltas = merged.map(
    ([a, b]): PlannedDelta => ({
      adapter: 'a',
      module: 'm',
      a: refer(a, [1, SIZE]),
      b: refer(b, [SIZE, 1]),
      rank: 1,
      alpha: 1,
      scaling: 1,
      transposed,
    }),
  );
  const tensor: PlannedTensor = {
    name: 'm.weight',
    dtype: 'F32',
    shape: [SIZE, SIZE],
    offset: 0,
    byteLength: 64,
    from: refer(NOTHING, [SIZE, SIZE]),
    deltas: deltas as [PlannedDelta, ...PlannedDelta[]],
    combined: { method: 'svd', rank: 1 },
  };
  const factors = sum.map(([a, b]) => {
    return { a: Float64Array.from(a), b: Float64Array.from(b), rank: 1, scaling: 1 };
  });
  return truncatedRows(tensor, factors, (reference) => stored.get(reference) ?? new Uint8Array());
}

describe('rows of a truncated sum', () => {
  test.each([false, true])('are those of its largest part (transposed: %s)', (transposed) => {
    const [first] = AXES as readonly [Pair];
    const skewed: Pair = [first[0], [1, 0, 1, 0]];
    const row = rowsOf([skewed, AXES[1]!], { transposed });
    expect([...row(0).product].map(Math.fround)).toEqual(transposed ? [3, 0, 3, 0] : [3, 0, 0, 0]);
    expect([...row(2).product].map(Math.fround)).toEqual(transposed ? NOTHING : [3, 0, 0, 0]);
    expect([...row(1).product]).toEqual(NOTHING);
  });

  test.each<[string, readonly Pair[], RegExp]>([
    [
      'of which a larger part was left out',
      [[NOTHING, NOTHING], AXES[1]!],
      /a larger one is left out/,
    ],
    [
      'whose directions are those of another sum',
      [
        [
          [3, 1, 0, 0],
          [1, 0, 0, 0],
        ],
        AXES[1]!,
      ],
      /not invariant/,
    ],
  ])('%s are refused', (_what, merged, problem) => {
    for (const transposed of [false, true]) {
      // Of another A the directions of inputs differ, which a transposed tensor has as its rows.
      const other = transposed ? merged.map(([a, b]): Pair => [b, a]) : merged;
      const sum = transposed ? AXES.map(([a, b]): Pair => [b, a]) : AXES;
      expect(() => rowsOf(sum, { transposed, merged: other })).toThrow(problem);
    }
  });
});
