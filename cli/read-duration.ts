import { usage } from './usage.ts';

const UNIT_MS = { m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/**
 * Reads an option such as `90m`, `12h` or `2d`.
 * @returns milliseconds
 * @throws WeldlineError `cli.usage`
 */
export function readDuration(
  option: string,
  value: string,
  { minMs, maxMs }: { readonly minMs: number; readonly maxMs: number },
): number {
  const [, count, unit = ''] = /^(\d{1,6})([mhd])$/.exec(value) ?? [];
  const ms =
    count === undefined ? Number.NaN : Number(count) * UNIT_MS[unit as keyof typeof UNIT_MS];
  if (ms >= minMs && ms <= maxMs) return ms;
  throw usage(
    `${option} is "${value}": expected minutes, hours or days such as 90m, 12h or 2d, from ` +
      `${shortDuration(minMs)} to ${shortDuration(maxMs)}.`,
  );
}

/** As it is written on the command line: `90m`, `12h`, `2d`. */
export function shortDuration(ms: number): string {
  const unit = (['d', 'h', 'm'] as const).find((each) => ms % UNIT_MS[each] === 0) ?? 'm';
  return `${Math.round(ms / UNIT_MS[unit])}${unit}`;
}
