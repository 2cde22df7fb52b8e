import { describe, expect, it } from 'vitest';
import { SlidingRate } from '../../activities/heartbeat.ts';

describe('the rate of an activity', () => {
  it('is not there before something has moved, and does not count what was done before', () => {
    const rate = new SlidingRate();
    expect(rate.at(0, 0)).toBeUndefined();
    expect(rate.at(500, 70_000)).toBeUndefined();
    expect(rate.at(1000, 71_000)).toBe(2000);
  });

  it('is that of the last twenty seconds: it falls to nothing when work stalls', () => {
    const rate = new SlidingRate();
    for (let second = 0; second <= 60; second++) rate.at(1000 * second, 1 + 100 * second);
    expect(rate.at(61_000, 6101)).toBe(100);
    let last: number | undefined;
    for (let second = 62; second <= 90; second++) last = rate.at(1000 * second, 6101);
    expect(last).toBe(0);
  });

  it('begins anew with another count', () => {
    const rate = new SlidingRate();
    rate.at(0, 100);
    rate.at(1000, 900);
    expect(rate.at(2000, 50)).toBeUndefined();
    expect(rate.at(3000, 80)).toBe(30);
  });
});
