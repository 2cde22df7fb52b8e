import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bootstrapDrop } from '../../../evaluation/gate/bootstrap-drop.ts';
import { pairOutcomes } from '../../../evaluation/gate/paired-outcomes.ts';
import { Random } from '../../doubles/random.ts';
import { outcomesOf, ways } from './trinomial.ts';

const someOutcomes = fc
  .tuple(fc.integer({ min: 1, max: 300 }), fc.nat(), fc.nat())
  .map(([prompts, a, b]) => {
    const lost = a % (prompts + 1);
    return { prompts, lost, gained: b % (prompts - lost + 1) };
  });

describe('bootstrapDrop', () => {
  it('is what resampling gives', () => {
    for (const [prompts, lost, gained] of [
      [20, 3, 1],
      [20, 12, 0],
      [150, 20, 9],
    ] as const) {
      const random = new Random(7);
      // The prompts themselves, and the two that are added.
      const differences = Array.from({ length: prompts + 2 }, (_, index) =>
        index <= lost ? 1 : index <= lost + gained + 1 ? -1 : 0,
      );
      const means = Array.from({ length: 20_000 }, () => {
        let sum = 0;
        for (let draw = 0; draw < differences.length; draw++)
          sum += differences[random.below(differences.length)]!;
        return sum / differences.length;
      }).sort((a, b) => a - b);
      const { low, high } = bootstrapDrop({ prompts, lost, gained });
      // One step of the grid is what chance in 20 000 samples may move an end by.
      const step = 1.01 / (prompts + 2);
      expect(Math.abs(low - means[500]!)).toBeLessThanOrEqual(step);
      expect(Math.abs(high - means[19_499]!)).toBeLessThanOrEqual(step);
    }
  });

  it.each([
    [10, 0.1, 0.02],
    [10, 0.3, 0],
    [20, 0.02, 0.02],
    [20, 0.1, 0.1],
    [20, 0.2, 0.05],
    [20, 0.5, 0.05],
    [50, 0.2, 0.2],
    [50, 0.3, 0],
  ])(
    'holds the true drop 95 times in 100: %i prompts, %d lost, %d gained',
    (prompts, lost, gained) => {
      let held = 0;
      for (const { outcomes, probability } of outcomesOf(prompts, lost, gained)) {
        const { low, high } = bootstrapDrop(outcomes);
        const drop = lost - gained;
        if (low <= drop + 1e-9 && drop <= high + 1e-9) held += probability;
      }
      expect(held).toBeGreaterThan(0.95);
    },
  );

  it.each([0.01, 0.05, 0.1, 0.2, 0.4])(
    'calls equal models worse less than 2.5 times in 100, where each share that changes is %d',
    (share) => {
      for (const prompts of [5, 10, 20, 50]) {
        let alarms = 0;
        for (const { outcomes, probability } of outcomesOf(prompts, share, share))
          if (bootstrapDrop(outcomes).low > 0) alarms += probability;
        expect(alarms).toBeLessThan(0.025);
      }
    },
  );

  it('finds a drop of 20 prompts where the exact McNemar test does', () => {
    for (let lost = 0; lost <= 20; lost++) {
      for (let gained = 0; gained <= Math.min(lost, 20 - lost); gained++) {
        const changed = lost + gained;
        let tail = 0;
        for (let k = lost; k <= changed; k++) tail += ways(changed, k) / 2 ** changed;
        const isFound = bootstrapDrop({ prompts: 20, lost, gained }).low > 0;
        // Where more than two were gained the exact test is more cautious than its 2.5 %.
        if (tail > 0.025 && tail < 0.04 && gained > 2) continue;
        expect({ lost, gained, isFound }).toEqual({ lost, gained, isFound: tail <= 0.025 });
      }
    }
  });

  it('holds what was found, within −1 and 1', () => {
    fc.assert(
      fc.property(someOutcomes, (outcomes) => {
        const { value, low, high } = bootstrapDrop(outcomes);
        expect(value).toBe((outcomes.lost - outcomes.gained) / outcomes.prompts);
        expect(low).toBeGreaterThanOrEqual(-1);
        expect(low).toBeLessThanOrEqual(value);
        expect(high).toBeGreaterThanOrEqual(value);
        expect(high).toBeLessThanOrEqual(1);
      }),
    );
  });

  it('is turned round where the two models change places', () => {
    fc.assert(
      fc.property(someOutcomes, ({ prompts, lost, gained }) => {
        const there = bootstrapDrop({ prompts, lost, gained });
        const back = bootstrapDrop({ prompts, lost: gained, gained: lost });
        expect(there.low + back.high).toBe(0);
        expect(there.high + back.low).toBe(0);
      }),
    );
  });

  it('rises with every prompt that is lost', () => {
    fc.assert(
      fc.property(someOutcomes, ({ prompts, lost, gained }) => {
        fc.pre(lost + gained < prompts);
        const before = bootstrapDrop({ prompts, lost, gained });
        const after = bootstrapDrop({ prompts, lost: lost + 1, gained });
        expect(after.low).toBeGreaterThanOrEqual(before.low);
        expect(after.high).toBeGreaterThanOrEqual(before.high);
      }),
    );
  });

  it('narrows with the number of prompts', () => {
    const widths = [20, 80, 320, 1280].map((prompts) => {
      const { low, high } = bootstrapDrop({ prompts, lost: prompts / 10, gained: prompts / 20 });
      return high - low;
    });
    for (const [index, width] of widths.slice(1).entries()) {
      const ratio = widths[index]! / width;
      expect(ratio).toBeGreaterThan(1.7);
      expect(ratio).toBeLessThan(2.2);
    }
  });

  it('claims nothing without prompts, and no certainty where all agree', () => {
    expect(bootstrapDrop({ prompts: 0, lost: 0, gained: 0 })).toEqual({
      value: 0,
      low: -1,
      high: 1,
    });
    const { low, high } = bootstrapDrop({ prompts: 20, lost: 0, gained: 0 });
    expect([low, high].map((end) => end.toFixed(3))).toEqual(['-0.136', '0.136']);
  });

  it('works out a suite of 100 000 prompts, where probabilities underflow', () => {
    const { value, low, high } = bootstrapDrop({ prompts: 100_000, lost: 6000, gained: 5000 });
    // √((0.11 − 0.01²) / n) is the standard deviation.
    expect(low).toBeCloseTo(value - 1.96 * 0.001048, 4);
    expect(high).toBeCloseTo(value + 1.96 * 0.001048, 4);
  });
});

describe('pairOutcomes', () => {
  const answers = (...correct: number[]) =>
    correct.map((each, index) => ({ index, correct: each === 1 }));

  it('counts what was lost and gained, in whatever order answers are', () => {
    const reference = answers(1, 1, 1, 0, 0);
    const candidate = answers(1, 0, 0, 1, 0);
    const expected = { prompts: 5, lost: 2, gained: 1 };
    expect(pairOutcomes(reference, candidate)).toEqual(expected);
    expect(pairOutcomes(reference.toReversed(), candidate)).toEqual(expected);
  });

  it.each([
    ['fewer prompts', answers(1, 1), answers(1)],
    ['more prompts', answers(1), answers(1, 1)],
    [
      'other prompts',
      answers(1, 1),
      [
        { index: 0, correct: true },
        { index: 7, correct: true },
      ],
    ],
    ['a prompt twice', answers(1, 1), [...answers(1), ...answers(1)]],
    ['a prompt of the reference twice', [...answers(1), ...answers(1)], answers(1)],
  ])('has none for %s', (_, reference, candidate) => {
    expect(pairOutcomes(reference, candidate)).toBeUndefined();
  });
});
