import { expect, test } from 'vitest';
import {
  dropAtRandom,
  isChosen,
  randomKeyOf,
  threefry,
} from '../../../engine/merge/bands/random-choice.ts';

/** Known answers of Threefry-2x32 with 20 rounds, from the authors' Random123 (`kat_vectors`). */
test.each([
  [0, 0, 0, 0, 0x6b200159, 0x99ba4efe],
  [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x1cb996fc, 0xbb002be7],
  [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xc4923a9c, 0x483df7a0],
])('counter %d %d, key %d %d', (low, high, first, second, one, two) => {
  const words = new Uint32Array(2);
  threefry([first, second], low, high, words);
  expect([...words]).toEqual([one, two]);
});

test('what is kept of a stretch does not depend on where the stretch begins', () => {
  const key = randomKeyOf(1, 'a', 'w');
  const whole = new Float32Array(101).fill(1);
  dropAtRandom(whole, 0, key, 0.4);
  expect([...whole]).toEqual([...whole.keys()].map((i) => (isChosen(i, key, 0.4) ? 1 : 0)));
  for (const [begin, end] of [
    [0, 1],
    [1, 2],
    [7, 30],
    [30, 101],
  ] as const) {
    const part = new Float32Array(end - begin).fill(1);
    dropAtRandom(part, begin, key, 0.4);
    expect(part).toEqual(whole.subarray(begin, end));
  }
});

test('beyond 2^33 elements the counter goes on in its second word', () => {
  const key = randomKeyOf(1, 'a', 'w');
  const near = Array.from({ length: 64 }, (_, i) => isChosen(i, key, 0.5));
  const far = Array.from({ length: 64 }, (_, i) => isChosen(i + 2 ** 33, key, 0.5));
  expect(far).not.toEqual(near);
});

test('a share of the density stays, and no two deltas share their choice', () => {
  const count = 100_000;
  const keys = [
    randomKeyOf(0, 'a', 'w'),
    randomKeyOf(1, 'a', 'w'),
    randomKeyOf(0, 'b', 'w'),
    randomKeyOf(0, 'a', 'v'),
  ];
  const choices = keys.map((key) => {
    const values = new Float32Array(count).fill(1);
    dropAtRandom(values, 0, key, 0.3);
    return values;
  });
  const shareOf = (test: (i: number) => boolean) =>
    Array.from({ length: count }, (_, i) => test(i)).filter(Boolean).length / count;
  // Six standard deviations of a share.
  const near = (share: number) => 6 * Math.sqrt((share * (1 - share)) / count);
  for (const [index, choice] of choices.entries()) {
    expect(Math.abs(shareOf((i) => choice[i] === 1) - 0.3)).toBeLessThan(near(0.3));
    const after = shareOf((i) => choice[i] === 1 && choice[(i + 1) % count] === 1);
    expect(Math.abs(after - 0.09)).toBeLessThan(near(0.09));
    for (const other of choices.slice(index + 1)) {
      const both = shareOf((i) => choice[i] === 1 && other[i] === 1);
      expect(Math.abs(both - 0.09)).toBeLessThan(near(0.09));
    }
  }
});
