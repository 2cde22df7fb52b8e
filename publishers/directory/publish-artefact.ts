import { rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { syncDirectory } from '../../engine/durable-files.ts';
import { systemErrorCode, WeldlineError } from '../../engine/errors.ts';
import { type Artefact, artefactNameOf, type PublishOptions } from '../publisher.ts';
import { isPrunable, PRUNED_FILE } from '../release-record.ts';
import { discard, openAttempt, removeAttempts } from './attempt-directory.ts';
import { copyFiles } from './copy-files.ts';
import { conflict, toPublishError } from './directory-errors.ts';
import { absentAs, type Occupant, occupantOf } from './read-artefact.ts';

type Options = Pick<PublishOptions, 'signal' | 'onProgress'>;

/**
 * Publishes files as `<target>/<artefact>`. It appears whole or not at all: files are copied into a
 * directory with a temporary name, which is then renamed. Attempts may overlap; a later one goes on
 * with what an earlier one copied, and takes it away from it.
 *
 * @throws WeldlineError `publish.conflict` if something else has the name, `publish.verify-failed`,
 *   `publish.not-writable`, `disk.*`, `source.not-found`
 */
export async function publishArtefact(
  target: string,
  artefact: Artefact,
  options: Options,
): Promise<{ readonly existed: boolean; readonly bytesSent: number }> {
  options.signal.throwIfAborted();
  const name = artefactNameOf(artefact);
  const location = join(target, name);
  try {
    const occupant = await occupantOf(location);
    if (occupant.kind !== 'nothing') {
      await requireEnd(occupant, location);
      requireSame(occupant, artefact, location);
      if (occupant.isPruned) return await restore(target, artefact, options);
      await removeAttempts(target, name);
      return { existed: true, bytesSent: 0 };
    }
    const attempt = await openAttempt(target, name, foldersOf(artefact));
    const bytesSent = await copyFiles(artefact.files, attempt, options);
    options.signal.throwIfAborted();
    await rename(attempt, location);
    await syncDirectory(target);
    return { existed: false, bytesSent };
  } catch (error) {
    if (options.signal.aborted) throw error;
    const occupant = await occupantOf(location);
    if (occupant.kind === 'nothing') throw overtakenOr(error, location);
    await requireEnd(occupant, location);
    requireSame(occupant, artefact, location);
    if (occupant.isPruned) throw overtakenOr(error, location);
    // Another attempt was faster.
    await removeAttempts(target, name);
    return { existed: true, bytesSent: 0 };
  }
}

/** Files that an artefact had before it was pruned are put back; the mark goes last. */
async function restore(
  target: string,
  artefact: Artefact,
  options: Options,
): Promise<{ readonly existed: true; readonly bytesSent: number }> {
  const { description, files } = artefact;
  const name = artefactNameOf(artefact);
  const location = join(target, name);
  const lacking = files.filter(({ path }) => isPrunable(path, description.kind));
  const attempt = await openAttempt(target, name, foldersOf({ files: lacking }));
  const bytesSent = await copyFiles(lacking, attempt, options);
  for (const { path } of lacking) await rename(join(attempt, path), join(location, path));
  await syncDirectory(location);
  await rm(join(location, PRUNED_FILE));
  await syncDirectory(location);
  await discard(attempt);
  return { existed: true, bytesSent };
}

/**
 * A link to a volume that is not mounted is no other artefact: a person can bring the volume back.
 * @throws WeldlineError `publish.not-writable`
 */
async function requireEnd({ kind }: Occupant, location: string): Promise<void> {
  if (kind !== 'other' || (await absentAs(undefined, stat(location))) !== undefined) return;
  throw new WeldlineError(
    'publish.not-writable',
    `${location} is a link that leads nowhere. Bring back what it leads to, or remove it.`,
  );
}

/** @throws WeldlineError `publish.conflict` if it is another artefact, or none of weldline's */
function requireSame(
  occupant: Occupant,
  { manifestDigest }: Artefact,
  location: string,
): asserts occupant is Extract<Occupant, { kind: 'artefact' }> {
  if (occupant.kind !== 'artefact') throw conflict(location, 'which is not a release of weldline');
  if (occupant.record.manifestDigest !== manifestDigest) {
    throw conflict(location, 'made from other inputs');
  }
}

function foldersOf({ files }: Pick<Artefact, 'files'>): readonly string[] {
  return [...new Set(files.map(({ path }) => dirname(path)))];
}

/** Its directory was taken away from it: so a file's parent is gone. */
function overtakenOr(error: unknown, location: string): WeldlineError {
  if (systemErrorCode(error) !== 'ENOENT') return toPublishError(error, location);
  return new WeldlineError(
    'publish.unavailable',
    `Somebody else is publishing ${location} at the same time and goes on with what was copied. ` +
      'Run again when that is done.',
    { cause: error },
  );
}
