import { expect, it } from 'vitest';
import { describeNight } from '../../cli/nightly-schedules.ts';

const NIGHT = {
  id: 'nightly-tone-2026-11-28T02:00:00Z',
  startedAt: '2026-11-28T02:00:00.000Z',
  nominalTime: '2026-11-28T02:00:00.000Z',
  state: 'failed',
  version: '1.2.20261128',
} as const;

it('says in its line what the gate refused, not only that it did', () => {
  const detail =
    'The gate refused merged:\n  merged: score-below-minimum (suite a): 0 of 20\nReport';
  expect(describeNight({ ...NIGHT, detail })).toBe(
    'failed 1.2.20261128: The gate refused merged: merged: score-below-minimum (suite a): 0 of 20',
  );
});

it('leaves out what follows a first line that is a sentence', () => {
  expect(describeNight({ ...NIGHT, detail: 'The disk is full.\nStack' })).toBe(
    'failed 1.2.20261128: The disk is full.',
  );
});
