import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemErrorCode } from '../../engine/errors.ts';
import { absentAs } from './read-artefact.ts';

/**
 * A directory in which one attempt at a publication collects its files: `.<artefact>.<12 hex
 * digits>.partial`. It holds what earlier attempts copied that did not come to an end.
 *
 * An attempt that is only thought dead may still be at work: the rename takes its directory from
 * under it at once, so that it fails at its next file and never publishes what is half moved.
 *
 * @param target the directory that artefacts are published into; made if it is missing
 * @param folders those that its files need, relative; all are made now, because an attempt that was
 *   overtaken must not make its directory anew with what it has left to do
 * @returns its path
 */
export async function openAttempt(
  target: string,
  artefact: string,
  folders: readonly string[],
): Promise<string> {
  const own = join(target, `.${artefact}.${randomBytes(6).toString('hex')}.partial`);
  await mkdir(target, { recursive: true });
  let isTaken = false;
  for (const { path, kind } of await attemptsAt(target, artefact)) {
    if (kind === 'left' || isTaken) await discard(path);
    else
      isTaken = await absentAs(
        false,
        rename(path, own).then(() => true),
      );
  }
  if (!isTaken) await mkdir(own);
  for (const folder of withParents(folders)) {
    await mkdir(join(own, folder)).catch((error: unknown) => {
      if (systemErrorCode(error) !== 'EEXIST') throw error;
    });
  }
  return own;
}

/**
 * Removes what attempts left that were killed, and nothing else.
 * @returns the paths of it
 */
export async function removeAttempts(target: string, artefact: string): Promise<readonly string[]> {
  const attempts = await attemptsAt(target, artefact);
  for (const { path } of attempts) await discard(path);
  return attempts.map(({ path }) => path);
}

/** Removes a directory that nobody may see half removed. */
export async function discard(path: string): Promise<void> {
  const left = path.replace(/\.partial$/, '.left');
  if (left !== path) await absentAs(undefined, rename(path, left));
  await rm(left, { recursive: true, force: true });
}

interface Attempt {
  readonly path: string;
  readonly kind: 'partial' | 'left';
}

async function attemptsAt(target: string, artefact: string): Promise<readonly Attempt[]> {
  const names = await absentAs([], readdir(target));
  return names.flatMap((name) => {
    if (!name.startsWith(`.${artefact}.`)) return [];
    const kind = /^[0-9a-f]{12}\.(partial|left)$/.exec(name.slice(artefact.length + 2))?.[1];
    return kind === undefined ? [] : [{ path: join(target, name), kind: kind as Attempt['kind'] }];
  });
}

/** Folders and those they are in, the outer ones first. */
function withParents(folders: readonly string[]): readonly string[] {
  const all = new Set<string>();
  for (const folder of folders) {
    for (let each = folder; each !== '.'; each = dirname(each)) all.add(each);
  }
  return [...all].sort((a, b) => a.length - b.length);
}
