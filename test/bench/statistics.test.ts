import { describe, expect, it } from 'vitest';
import { median, shuffled } from '../../bench/statistics.ts';

describe('median', () => {
  it('is the middle of an odd number of values, whatever their order', () => {
    expect(median([9, 1, 10, 2, 3])).toBe(3);
  });

  it('is between the two in the middle of an even number', () => {
    expect(median([4, 1, 2, 10])).toBe(3);
  });

  it('is not a number where there are no values', () => {
    expect(median([])).toBeNaN();
  });
});

describe('shuffled', () => {
  it('makes every order, each about as often', () => {
    let state = 1;
    const random = (): number => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state / 2 ** 32;
    };
    const counts = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const order = shuffled(['a', 'b', 'c'], random).join('');
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect([...counts.keys()].sort()).toEqual(['abc', 'acb', 'bac', 'bca', 'cab', 'cba']);
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
  });

  it('leaves its input as it was', () => {
    const items = [1, 2, 3];
    shuffled(items, () => 0);
    expect(items).toEqual([1, 2, 3]);
  });
});
