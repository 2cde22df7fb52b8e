import type { Interval } from '../gate-decision.ts';

/** A share in percents, with one digit where there is something to see. */
export function percent(share: number): string {
  return `${Number((100 * share).toFixed(1))} %`;
}

/** `60 % (95 % interval 27.3 % to 77.3 %)`. */
export function percentWithInterval({ value, low, high }: Interval): string {
  return `${percent(value)} (95 % interval ${percent(low)} to ${percent(high)})`;
}

/** Three digits that count, as KL divergences of 0.00001 and of 3 have to be told apart. */
export function figure(value: number): string {
  return Number.isFinite(value) ? String(Number(value.toPrecision(3))) : 'no number';
}
