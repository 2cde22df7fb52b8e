import { stripVTControlCharacters } from 'node:util';
import { type ErrorCode, WeldlineError } from '../engine/errors.ts';
import type { LeashReport } from './leash.ts';

/** What an error shows of a program's output: enough for a traceback's end. */
const LAST_LINES_MAX = 15;
const LINE_LENGTH_MAX = 500;
/** The same with escape sequences, which are not shown. */
const RAW_LENGTH_MAX = 4 * LINE_LENGTH_MAX;

const DISK_FULL =
  /No space left on device|\bENOSPC\b|os error 28\)|\[Errno 28\]|Disk quota exceeded|\bEDQUOT\b/;
const OUT_OF_MEMORY =
  /\bMemoryError\b|\bbad_alloc\b|annot allocate memory|can't allocate memory|failed to allocate buffer|CUDA out of memory|\bOutOfMemory/;
/** What a shell reports for a program that was killed by signal 9. */
const KILLED_EXIT_CODE = 137;

/** The last lines that a program printed, for people: no escape sequences, no endless lines. */
export class LastLines {
  readonly #lines: string[] = [];

  add(line: string): void {
    if (line.trim() !== '') this.#lines.push(line.slice(0, RAW_LENGTH_MAX));
    if (this.#lines.length > LAST_LINES_MAX) this.#lines.shift();
  }

  toString(): string {
    return this.#lines.map((line) => `\n  ${forPeople(line)}`).join('');
  }
}

/** A piece of a program's output as it can be shown: short, without control characters. */
export function forPeople(text: string): string {
  return stripVTControlCharacters(text.slice(0, RAW_LENGTH_MAX))
    .replaceAll('\t', '  ')
    .replace(/\p{Cc}/gu, '\ufffd')
    .slice(0, LINE_LENGTH_MAX);
}

/** What stopped a program that did not end by itself. */
export interface Stopped {
  readonly code: 'tool.failed' | 'tool.stalled';
  /** `took longer than 3 s` */
  readonly how: string;
}

/** The error for a program that ended as it should not have, with its last lines. */
export function programFailure(
  name: string,
  file: string,
  ending: LeashReport,
  lastLines: LastLines,
  stopped?: Stopped,
): WeldlineError {
  const { exitCode, signal, startError } = ending;
  if (startError !== undefined) {
    return new WeldlineError(
      'tool.not-found',
      `${file} cannot be started (${startError}). Is it installed and executable?`,
    );
  }
  const printed = String(lastLines);
  const how =
    stopped?.how ??
    (signal === null ? `failed with exit code ${exitCode}` : `was ended by ${signal}`);
  const isKilled = signal === 'SIGKILL' || exitCode === KILLED_EXIT_CODE;
  const code = stopped?.code ?? failureCode(printed, isKilled);
  return new WeldlineError(code, `${forPeople(name)} ${how}.${advice(code, isKilled)}${printed}`);
}

/** The code for what a program says of its failure. */
export function failureCode(printed: string, isKilled = false): ErrorCode {
  if (DISK_FULL.test(printed)) return 'disk.full';
  return isKilled || OUT_OF_MEMORY.test(printed) ? 'tool.killed' : 'tool.failed';
}

/** What to do about a failure, as a sentence behind the message; empty where its output says more. */
export function advice(code: ErrorCode, isKilled = false): string {
  if (code === 'disk.full') return ' The disk is full: free some space and resume.';
  if (code !== 'tool.killed') return '';
  const what = isKilled ? 'The system may have run out of memory' : 'It ran out of memory';
  return ` ${what}: end other programs or use a machine with more, and resume.`;
}
