import { formatBytes } from '../cli/format.ts';
import type { Round } from './measurement.ts';
import { median } from './statistics.ts';

/** What is claimed, and what a run must find for it to be true. */
export interface Target {
  readonly limit: number;
  readonly direction: 'at most' | 'at least';
  readonly unit: 'times' | 'seconds' | 'bytes';
  /** Which of the rounds' values is held against the limit. */
  readonly judged: 'median' | 'highest';
}

export interface Check {
  readonly title: string;
  readonly target: Target;
  /** @returns undefined if a contestant that it needs did not take part */
  value(round: Round): number | undefined;
}

/** What the rounds of a case say about one of its checks. */
export interface Verdict {
  readonly title: string;
  readonly target: Target;
  /** One for each round; none if it was not measured. */
  readonly values: readonly number[];
  readonly outcome: 'hit' | 'MISS' | 'not measured';
}

/** A round without a value makes the check unmeasured: what is left would be a choice. */
export function judge({ title, target, value }: Check, rounds: readonly Round[]): Verdict {
  const values = rounds.map(value).filter((found) => found !== undefined);
  if (values.length === 0 || values.length < rounds.length) {
    return { title, target, values: [], outcome: 'not measured' };
  }
  const judged = target.judged === 'median' ? median(values) : Math.max(...values);
  const isHit = target.direction === 'at most' ? judged <= target.limit : judged >= target.limit;
  return { title, target, values, outcome: isHit ? 'hit' : 'MISS' };
}

export function formatTarget({ limit, direction, unit, judged }: Target): string {
  const sign = direction === 'at most' ? '≤' : '≥';
  return `${sign} ${formatValue(limit, unit)}${judged === 'highest' ? ' always' : ''}`;
}

export function formatValue(value: number, unit: Target['unit']): string {
  if (unit === 'bytes') return formatBytes(value);
  return unit === 'times' ? `${value.toFixed(2)} ×` : `${value.toFixed(2)} s`;
}
