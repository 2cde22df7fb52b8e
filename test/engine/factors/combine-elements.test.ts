import { expect, test } from 'vitest';
import { combineElements, type ElementRule } from '../../../engine/factors/combine-elements.ts';

/** By PEFT's definitions; what PEFT itself gives is in test/golden/combinations. */
function combine(rule: ElementRule, weights: number[], ...tensors: number[][]): number[] {
  const values = tensors.map((tensor) => Float32Array.from(tensor));
  return Array.from(combineElements(values, weights, rule), (value) => value + 0);
}

test.each<[string, ElementRule, number[], number[][], number[]]>([
  [
    'a weighted sum',
    { method: 'peft_linear' },
    [2, -1],
    [
      [1, 2],
      [3, 5],
    ],
    [-1, -1],
  ],
  [
    'the sign of the sum',
    { method: 'peft_ties' },
    [1, 1, 1],
    [
      [3, 1],
      [-1, -4],
      [-1, 2],
    ],
    // Of the first, 1 + 2 are 3 and win over -2; of the second, -4 does over 3.
    [3, -4],
  ],
  [
    'the sign of most',
    { method: 'peft_ties', majoritySign: 'frequency' },
    [1, 1, 1],
    [
      [3, 1],
      [-1, -4],
      [-1, 2],
    ],
    [-1, 1.5],
  ],
  ['a tie is positive', { method: 'peft_ties' }, [1, 1], [[2], [-2]], [2]],
  [
    'signs are elected without weights, the mean is weighted',
    { method: 'peft_ties' },
    [10, 0.5],
    [[-1], [3]],
    [1.5],
  ],
  [
    'the largest magnitudes of each stay',
    { method: 'peft_magnitude_prune', density: 0.5 },
    [1, 1],
    [
      [1, -4, 2, 3],
      [8, 1, 1, -9],
    ],
    [8, -4, 0, -6],
  ],
  [
    'a share that is not whole is rounded down',
    { method: 'peft_magnitude_prune', density: 0.74 },
    [1],
    [[1, 2, 3, 4]],
    [0, 0, 3, 4],
  ],
  [
    'of equal magnitudes the first stay, and no more than the share',
    { method: 'peft_magnitude_prune', density: 0.5 },
    [1],
    [[1, -1, 1, 5, 1, -1]],
    [1, -1, 0, 5, 0, 0],
  ],
  ['a share that keeps nothing', { method: 'peft_ties', density: 0.1 }, [1], [[1, 2]], [0, 0]],
])('%s', (_what, rule, weights, tensors, expected) => {
  expect(combine(rule, weights, ...tensors)).toEqual(expected);
});
