import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { wilsonInterval } from '../../../evaluation/gate/wilson-interval.ts';

describe('wilsonInterval', () => {
  it('ends where a score test of 5 % would reject the share', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5000 }), fc.nat(), (prompts, any) => {
        const correct = any % (prompts + 1);
        const { value, low, high } = wilsonInterval(correct, prompts);
        expect(value).toBe(correct / prompts);
        expect(low).toBeLessThanOrEqual(value);
        expect(high).toBeGreaterThanOrEqual(value);
        for (const end of [low, high]) {
          if (end === value) continue;
          const z = Math.abs(value - end) / Math.sqrt((end * (1 - end)) / prompts);
          expect(z).toBeCloseTo(1.95996, 4);
        }
      }),
    );
  });

  it('has the figures of the tables', () => {
    const shown = ({ low, high }: { low: number; high: number }) =>
      [low, high].map((end) => end.toFixed(4));
    expect(shown(wilsonInterval(19, 20))).toEqual(['0.7639', '0.9911']);
    expect(shown(wilsonInterval(20, 20))).toEqual(['0.8389', '1.0000']);
    expect(shown(wilsonInterval(0, 20))).toEqual(['0.0000', '0.1611']);
    expect(wilsonInterval(0, 0)).toEqual({ value: 0, low: 0, high: 1 });
  });
});
