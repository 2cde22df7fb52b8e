import fc from 'fast-check';
import { expect, test } from 'vitest';
import { joinRanges } from '../../sources/join-ranges.ts';

test('joined ranges cover the same bytes as the ranges, and are disjoint', () => {
  const small = fc
    .tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1, max: 12 }))
    .map(([begin, length]) => ({ begin, end: begin + length }));
  fc.assert(
    fc.property(fc.array(small, { maxLength: 12 }), (ranges) => {
      const bytes = new Set(ranges.flatMap(({ begin, end }) => spread(begin, end)));
      const joined = joinRanges(ranges);
      expect(joined.flatMap(({ begin, end }) => spread(begin, end))).toEqual(
        [...bytes].sort((a, b) => a - b),
      );
      for (const [index, { begin }] of joined.entries()) {
        if (index > 0) expect(begin).toBeGreaterThan(joined[index - 1]?.end ?? 0);
      }
    }),
  );
});

function spread(begin: number, end: number): number[] {
  return Array.from({ length: end - begin }, (_, index) => begin + index);
}
