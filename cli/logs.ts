import { open, readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { toolLog } from '../activities/workspace.ts';
import { readEnvironment } from '../config/environment.ts';
import { toReadError } from '../engine/disk-errors.ts';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { releaseLogPath } from '../workers/release-logs.ts';
import { possibleIds } from '../workflows/release-id.ts';
import { EXIT } from './exit-codes.ts';
import { interruptionSignal } from './interruption.ts';
import { logLine } from './log-line.ts';
import type { Output } from './output.ts';
import { STOPPED_WATCHING, withSession } from './release.ts';
import { findRelease, queryStatus } from './release-handle.ts';

export interface LogsCommand {
  /** Goes on as lines are written, until it is stopped. */
  readonly follow?: boolean;
  /** Also what programs printed. */
  readonly tools?: boolean;
}

const POLL_INTERVAL_MS = 300;

/** Of what one program printed, the end is shown. */
const TOOL_BYTES_SHOWN = 64 * 1024;

/** `weldline logs`: what workers wrote of a release into this home. No server is asked for it. */
export async function runLogs(
  wanted: string | undefined,
  options: LogsCommand,
  output: Output,
): Promise<number> {
  const { home } = readEnvironment();
  const path = await findLog(home, wanted);
  const isJson = output.json;
  const show = (text: string): void => {
    for (const line of text.split('\n')) {
      if (line !== '') process.stdout.write(`${isJson ? line : logLine(line)}\n`);
    }
  };
  // What was written before the file became too long.
  show((await readFrom(`${path}.1`, 0))?.text ?? '');
  const last = await readFrom(path, 0);
  show(last?.text ?? '');
  if (options.tools === true) await showTools(wanted ?? nameOf(path), home, output);
  if (options.follow !== true) return EXIT.ok;
  return follow(path, last, show);
}

/** The log of a release, or of the one that was written to last. */
async function findLog(home: string, wanted: string | undefined): Promise<string> {
  const directory = dirname(releaseLogPath(home, 'any'));
  const candidates =
    wanted === undefined
      ? (await namesOf(directory)).map((name) => join(directory, name))
      : possibleIds(wanted).map((id) => releaseLogPath(home, id));
  const found: { readonly path: string; readonly mtimeMs: number }[] = [];
  for (const path of candidates) {
    const stats = await stat(path).catch(() => undefined);
    if (stats?.isFile() === true) found.push({ path, mtimeMs: stats.mtimeMs });
  }
  const last = found.sort((a, b) => b.mtimeMs - a.mtimeMs)[0];
  if (last !== undefined) return last.path;
  throw new WeldlineError(
    'release.not-found',
    `${directory} has no log${wanted === undefined ? 's yet' : ` of ${wanted}`}. Workers write logs ` +
      'into their own home: look on the host that weldline status names, or where its workers run.',
  );
}

async function namesOf(directory: string): Promise<readonly string[]> {
  return (await readdir(directory).catch(() => [])).filter((name) => name.endsWith('.log'));
}

/** The id that a log is named after; of very long ones not the whole. */
function nameOf(path: string): string {
  return decodeURIComponent(path.replace(/^.*[/\\]|\.log$/g, ''));
}

interface Piece {
  /** Whole lines only. */
  readonly text: string;
  /** Where the next one begins, in bytes. */
  readonly end: number;
  /** Of the file that it is of. */
  readonly inode: number;
}

/** @returns undefined if there is no such file */
async function readFrom(path: string, begin: number): Promise<Piece | undefined> {
  try {
    const handle = await open(path, 'r');
    try {
      const { size, ino: inode } = await handle.stat();
      const buffer = Buffer.alloc(Math.max(0, size - begin));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, begin);
      const length = buffer.subarray(0, bytesRead).lastIndexOf('\n') + 1;
      const text = buffer.subarray(0, length).toString('utf8');
      return { text, end: begin + length, inode };
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw toReadError(error, path);
  }
}

async function follow(
  path: string,
  from: Piece | undefined,
  show: (text: string) => void,
): Promise<number> {
  const signal = interruptionSignal();
  let last = from;
  while (!signal.aborted) {
    let next = await readFrom(path, last?.end ?? 0);
    if (next !== undefined && last !== undefined && next.inode !== last.inode) {
      // A new file was begun. What came into the other one since is where that one is now.
      show((await readFrom(`${path}.1`, last.end))?.text ?? '');
      next = await readFrom(path, 0);
    }
    show(next?.text ?? '');
    last = next ?? last;
    await setTimeout(POLL_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
  }
  return EXIT.ok;
}

/** What conversions and evaluations printed; the release says under which name. */
async function showTools(wanted: string, home: string, output: Output): Promise<void> {
  const work = async (
    ...[session]: Parameters<Parameters<typeof withSession>[1]>
  ): Promise<number> => {
    const { handle } = await findRelease(session.client, wanted);
    const { inputs } = await queryStatus(session, handle);
    const directory = inputs && dirname(toolLog(home, inputs.artefact, 'any'));
    const names = directory === undefined ? [] : (await namesOf(directory)).toSorted();
    if (names.length === 0) output.note('No program has printed anything for it into this home.');
    for (const name of names) {
      const path = join(directory ?? '', name);
      const { size } = await stat(path);
      output.line(`==> ${path}`);
      const piece = await readFrom(path, Math.max(0, size - TOOL_BYTES_SHOWN));
      output.line((piece?.text ?? '').trimEnd());
    }
    return EXIT.ok;
  };
  await withSession(output, work, STOPPED_WATCHING);
}
