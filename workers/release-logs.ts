import { createHash } from 'node:crypto';
import { appendFileSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Of one file of a release. A release of ordinary size writes some 20 kB. */
const FILE_BYTES_MAX = 4 * 1024 * 1024;
/** File systems take 255 bytes; the ending and a digest need some. */
const NAME_LENGTH_MAX = 180;

/** A release and the workflow that merges for it are one to the reader. */
export function releaseOf(workflowId: string): string {
  return workflowId.replace(/\/merge$/, '');
}

/**
 * The log of a release, in JSON lines; what is older is in the same path with `.1` at its end.
 * @param workflowId of the release, or of its merge
 */
export function releaseLogPath(home: string, workflowId: string): string {
  const release = releaseOf(workflowId);
  // Ids may hold what has a meaning in paths, and every id must have a file of its own.
  const name = encodeURIComponent(release.toWellFormed()).replace(/^\.|[*'()!~]/g, escaped);
  const digest = createHash('sha256').update(release).digest('hex').slice(0, 16);
  const short =
    name.length <= NAME_LENGTH_MAX ? name : `${name.slice(0, NAME_LENGTH_MAX)}-${digest}`;
  return join(home, 'logs', 'releases', `${short}.log`);
}

function escaped(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`;
}

/**
 * Adds a line to the log of a release. It is written at once, so that it is there when the process
 * is killed. Nothing of it may harm the work: a disk that is full loses lines, no more.
 * @param bytesMax after which a new file is begun; the one before is kept
 */
export function appendToReleaseLog(
  home: string,
  workflowId: string,
  line: string,
  bytesMax = FILE_BYTES_MAX,
): void {
  try {
    const path = releaseLogPath(home, workflowId);
    // Asked each time: other workers write to the same file.
    const bytes = statSync(path, { throwIfNoEntry: false })?.size;
    if (bytes === undefined) mkdirSync(dirname(path), { recursive: true });
    else if (bytes + line.length > bytesMax) renameSync(path, `${path}.1`);
    appendFileSync(path, line);
  } catch {
    // The same line went to the log of the worker.
  }
}
