import { clockAt } from '../config/version-rule.ts';
import { usage } from './usage.ts';

const DAY_MS = 86_400_000;

/**
 * Reads an option that names a moment: a day (its beginning, or its end for `edge: 'end'`, as clocks
 * in the time zone have it), or ISO 8601 with an offset.
 * @throws WeldlineError `cli.usage`
 */
export function readMoment(
  option: string,
  value: string,
  timeZone: string,
  edge: 'begin' | 'end',
): Date {
  const utcMs = Date.parse(value);
  // `Date.parse` takes the 31st of February for a day in March.
  const isDay =
    /^\d{4}-\d{2}-\d{2}$/.test(value) &&
    !Number.isNaN(utcMs) &&
    new Date(utcMs).toISOString().startsWith(value);
  if (isDay) return new Date(midnight(edge === 'end' ? utcMs + DAY_MS : utcMs, timeZone));
  const hasOffset = /^\d{4}-\d{2}-\d{2}T[\d:.]+(Z|[+-]\d{2}:\d{2})$/.test(value);
  if (hasOffset && !Number.isNaN(utcMs)) return new Date(utcMs);
  throw usage(
    `${option} is "${value}": expected a day such as 2026-11-01, or a moment such as ` +
      '2026-11-01T02:00:00Z.',
  );
}

/** When a day begins in a time zone. @param dayMs the same midnight in UTC */
function midnight(dayMs: number, timeZone: string): number {
  // The second step is for days whose clocks are changed between the guess and the answer.
  const guess = dayMs - offsetMs(dayMs, timeZone);
  return dayMs - offsetMs(guess, timeZone);
}

function offsetMs(ms: number, timeZone: string): number {
  const { date, time } = clockAt(new Date(ms), timeZone);
  const [, year, month, day] = /^(\d{4})(\d\d)(\d\d)$/.exec(date) ?? [];
  const [, hour, minute, second] = /^(\d\d)(\d\d)(\d\d)$/.exec(time) ?? [];
  const shown = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  return shown - Math.floor(ms / 1000) * 1000;
}
