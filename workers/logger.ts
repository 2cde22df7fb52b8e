import { createWriteStream, mkdirSync, renameSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DefaultLogger, type LogEntry, type Logger } from '@temporalio/worker';
import type { LogLevel } from '../config/environment.ts';

/** A process writes no more than this; a file that is larger at its start goes to `.1`. */
const LOG_BYTES_MAX = 16 * 1024 * 1024;
/** Of one text in an entry: what programs print last may be long. */
const TEXT_LENGTH_MAX = 8_000;

/** A logger that writes one JSON object per line, to a file or to standard error. */
export function createLogger(level: LogLevel, path?: string): Logger {
  const write = path === undefined ? writeToStderr : fileWriter(path);
  return new DefaultLogger(level.toUpperCase() as 'INFO', (entry) => write(formatEntry(entry)));
}

/** An entry as a line: time, level, message, and then what it is about. */
export function formatEntry({ timestampNanos, level, message, meta }: LogEntry): string {
  const time = new Date(Number(timestampNanos / 1_000_000n)).toISOString();
  const { error, ...rest } = meta ?? {};
  const reason = error instanceof Error ? { error: `${error.name}: ${error.message}` } : {};
  return `${JSON.stringify({ time, level, message, ...rest, ...reason }, asPlain)}\n`;
}

/** Plain JSON, in which no text is longer than a person reads. */
function asPlain(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return String(value);
  if (typeof value !== 'string' || value.length <= TEXT_LENGTH_MAX) return value;
  return `${value.slice(0, TEXT_LENGTH_MAX)}…`;
}

function writeToStderr(line: string): void {
  process.stderr.write(line);
}

function fileWriter(path: string): (line: string) => void {
  mkdirSync(dirname(path), { recursive: true });
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (size > LOG_BYTES_MAX) renameSync(path, `${path}.1`);
  const stream = createWriteStream(path, { flags: 'a' });
  // A full disk must not take the worker down with its log.
  stream.on('error', () => undefined);
  let bytes = 0;
  return (line) => {
    bytes += line.length;
    if (bytes < LOG_BYTES_MAX) stream.write(line);
  };
}
