import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bootstrapDrop } from '../../../evaluation/gate/bootstrap-drop.ts';
import { promptsToSee, smallestDropSeen } from '../../../evaluation/gate/detectable-drop.ts';
import { Random } from '../../doubles/random.ts';
import { outcomesOf } from './trinomial.ts';

const noise = (dropMax: number, gainedShare: number, rightShare = 1) => ({
  dropMax,
  gainedShare,
  rightShare,
});

const someNoise = fc.record({
  dropMax: fc.double({ min: 0, max: 0.2, noNaN: true }),
  gainedShare: fc.double({ min: 0, max: 0.1, noNaN: true }),
  rightShare: fc.constant(1),
});

describe('smallestDropSeen', () => {
  it.each([
    [10, 0.001, 0],
    [20, 0.001, 0],
    [20, 0.001, 0.05],
    [20, 0.05, 0.02],
    [50, 0.001, 0.02],
    [50, 0.05, 0],
    [100, 0.001, 0],
    [100, 0.05, 0.05],
  ])(
    'is found about 80 times in 100: %i prompts, max_drop %d, %d gained',
    (prompts, dropMax, gained) => {
      const drop = smallestDropSeen(prompts, noise(dropMax, gained)) ?? 0;
      let found = 0;
      for (const { outcomes, probability } of outcomesOf(prompts, drop + gained, gained))
        if (bootstrapDrop(outcomes).low > dropMax) found += probability;
      // Counts of prompts are whole numbers: 70 to 90 % is as near as they come.
      expect(found).toBeGreaterThan(0.7);
      expect(found).toBeLessThan(0.9);
    },
  );

  it('is found in about 80 % of suites of 1000 prompts that are drawn', () => {
    const gained = 0.02;
    const drop = smallestDropSeen(1000, noise(0.001, gained)) ?? 0;
    const random = new Random(11);
    let found = 0;
    for (let suite = 0; suite < 400; suite++) {
      const outcomes = { prompts: 1000, lost: 0, gained: 0 };
      for (let prompt = 0; prompt < 1000; prompt++) {
        const fate = random.next() / 2 ** 32;
        if (fate < drop + gained) outcomes.lost += 1;
        else if (fate > 1 - gained) outcomes.gained += 1;
      }
      if (bootstrapDrop(outcomes).low > 0.001) found += 1;
    }
    expect(found / 400).toBeGreaterThan(0.75);
    expect(found / 400).toBeLessThan(0.87);
  });

  it('is smaller in larger suites, and larger where more goes by chance', () => {
    fc.assert(
      fc.property(someNoise, fc.integer({ min: 20, max: 5000 }), (given, prompts) => {
        const drop = smallestDropSeen(prompts, given);
        expect(drop).toBeGreaterThan(given.dropMax);
        expect(smallestDropSeen(prompts + 10, given)).toBeLessThan(drop!);
        const noisier = { ...given, gainedShare: given.gainedShare + 0.01 };
        expect(smallestDropSeen(prompts, noisier)).toBeGreaterThan(drop!);
      }),
    );
  });

  it('is none where not even losing everything would be found', () => {
    expect(smallestDropSeen(0, noise(0.001, 0))).toBeUndefined();
    expect(smallestDropSeen(3, noise(0.001, 0))).toBeUndefined();
    expect(smallestDropSeen(20, noise(0.001, 0, 0.3))).toBeUndefined();
    expect(smallestDropSeen(20, noise(0.001, 0, 0.4))).toBeCloseTo(0.345, 3);
    expect(smallestDropSeen(20, noise(1, 0))).toBeUndefined();
  });
});

describe('promptsToSee', () => {
  it('is how many prompts make a drop the smallest that is seen', () => {
    fc.assert(
      fc.property(someNoise, fc.integer({ min: 10, max: 3000 }), (given, prompts) => {
        const drop = smallestDropSeen(prompts, given);
        fc.pre(drop !== undefined);
        // One search ends a hair above the drop, so that the other may need a prompt less.
        const needed = promptsToSee(drop!, given)!;
        expect(Math.abs(needed - prompts)).toBeLessThanOrEqual(1);
      }),
    );
  });

  it('is none for a drop that is allowed, or hardly more', () => {
    expect(promptsToSee(0.01, noise(0.01, 0))).toBeUndefined();
    expect(promptsToSee(0.0100001, noise(0.01, 0.05))).toBeUndefined();
  });
});
