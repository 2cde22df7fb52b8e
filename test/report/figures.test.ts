import { expect, it } from 'vitest';
import { formatDuration } from '../../report/figures.ts';

it('a duration has no 60 s and no 60 min', () => {
  const told = [9_400, 59_400, 59_600, 119_600, 3_599_600, 7_260_000].map(formatDuration);
  expect(told).toEqual(['9.4 s', '59 s', '1 min 0 s', '2 min 0 s', '1 h 0 min', '2 h 1 min']);
});
