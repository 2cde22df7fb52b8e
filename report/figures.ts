/** Figures as people read them, the same on every machine: no locale, no clock. */

/** Decimal units, as disks and model hubs use. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

export function formatDuration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  // Rounded first: 119.6 s are 2 min, not 1 min 60 s.
  const rounded = Math.round(seconds);
  if (rounded < 60) return `${rounded} s`;
  const minutes = Math.floor(rounded / 60);
  if (minutes < 60) return `${minutes} min ${rounded % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A share of 0 to 1 in percents with one digit, which no line break parts from its sign. */
export function formatPercent(share: number): string {
  const text = (100 * share).toFixed(1);
  return `${text === '-0.0' ? '0.0' : text.replace('-', '−')}\u00a0%`;
}

/** A divergence or an error: two digits that count, `0.0034` or `3.4e-6`. */
export function formatSmall(value: number): string {
  if (value === 0) return '0';
  if (!Number.isFinite(value)) return 'not finite';
  const magnitude = Math.abs(value);
  if (magnitude < 0.0001) return value.toExponential(1);
  return `${Number(value.toPrecision(magnitude < 1 ? 2 : 3))}`;
}

export function formatTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}

/** `1 file`, `2 files`. */
export function counted(count: number, noun: string, nouns = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : nouns}`;
}
