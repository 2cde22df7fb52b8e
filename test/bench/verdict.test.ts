import { describe, expect, it } from 'vitest';
import type { Measurement, Round } from '../../bench/measurement.ts';
import { formatTarget, judge, type Target } from '../../bench/verdict.ts';

function run(seconds: number): Measurement {
  return { seconds, userSeconds: 0, systemSeconds: 0, peakMemoryBytes: 0 };
}

const target: Target = { limit: 1.5, direction: 'at most', unit: 'times', judged: 'median' };
const check = {
  title: 'merge against copy',
  target,
  value: ({ merge, copy }: Round): number | undefined =>
    merge === undefined || copy === undefined ? undefined : merge.seconds / copy.seconds,
};

describe('judge', () => {
  it('takes ratios within a round, and the median of them', () => {
    const rounds = [
      { merge: run(1), copy: run(1) },
      { merge: run(30), copy: run(20) },
      { merge: run(9), copy: run(3) },
    ];
    expect(judge(check, rounds)).toMatchObject({ values: [1, 1.5, 3], outcome: 'hit' });
  });

  it('calls a median past the limit a miss, in either direction', () => {
    const rounds = [{ merge: run(1.51), copy: run(1) }];
    expect(judge(check, rounds).outcome).toBe('MISS');
    const atLeast: Target = { ...target, limit: 1.52, direction: 'at least' };
    expect(judge({ ...check, target: atLeast }, rounds).outcome).toBe('MISS');
  });

  it('judges a peak by the highest round', () => {
    const rounds = [1, 1, 1, 1, 1.6].map((merge) => ({ merge: run(merge), copy: run(1) }));
    const highest: Target = { ...target, judged: 'highest' };
    expect(judge(check, rounds).outcome).toBe('hit');
    expect(judge({ ...check, target: highest }, rounds).outcome).toBe('MISS');
  });

  it('measures nothing where a contestant is missing, even in one round only', () => {
    expect(judge(check, [])).toMatchObject({ values: [], outcome: 'not measured' });
    const rounds = [{ merge: run(1), copy: run(1) }, { merge: run(1) }];
    expect(judge(check, rounds)).toMatchObject({ values: [], outcome: 'not measured' });
  });
});

describe('formatTarget', () => {
  it('says which way the limit goes and when it counts for every round', () => {
    expect(formatTarget(target)).toBe('≤ 1.50 ×');
    const memory: Target = {
      ...{ limit: 200_000_000, direction: 'at most', unit: 'bytes', judged: 'highest' },
    };
    expect(formatTarget(memory)).toBe('≤ 200 MB always');
    const seconds: Target = { limit: 3, direction: 'at least', unit: 'seconds', judged: 'median' };
    expect(formatTarget(seconds)).toBe('≥ 3.00 s');
  });
});
