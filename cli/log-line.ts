import { printable } from './printable.ts';

/** What every line has, and nobody reads for. */
const OMITTED = [
  'release',
  'run',
  'taskQueue',
  'trace_id',
  'span_id',
  'trace_flags',
  'workflowType',
];

/**
 * A line of a log as a person reads it: time, level, stage, message, then what else it says.
 * @param line JSON as workers write it; anything else stays as it is
 */
export function logLine(line: string): string {
  return printable(readable(line));
}

function readable(line: string): string {
  let entry: Readonly<Record<string, unknown>>;
  try {
    entry = Object(JSON.parse(line)) as Readonly<Record<string, unknown>>;
  } catch {
    return line;
  }
  const { time, level, message, stage, activity, attempt, ...rest } = entry;
  if (typeof time !== 'string' || typeof message !== 'string') return line;
  const others = Object.entries(rest)
    .filter(([name]) => !OMITTED.includes(name))
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const which = [stage, activity === stage ? undefined : activity];
  return [
    time.slice(0, 19).replace('T', ' '),
    String(level ?? '').padEnd(5),
    which.filter(Boolean).join('/'),
    message,
    ...(attempt === undefined || attempt === 1 ? [] : [`attempt=${String(attempt)}`]),
    ...others,
  ].join('  ');
}
