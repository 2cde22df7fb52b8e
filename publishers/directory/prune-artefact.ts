import { readdir, rename, rm, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { syncDirectory, writeFileDurably } from '../../engine/durable-files.ts';
import type { ArtefactDescription } from '../publisher.ts';
import { isPrunable, PRUNED_FILE } from '../release-record.ts';
import { openAttempt, removeAttempts } from './attempt-directory.ts';

/**
 * Removes the weights of a published artefact. The mark is written first: one that was pruned half is
 * known as such, and pruned to the end by the next who tries.
 *
 * @param target the directory that holds the artefact
 * @param requireUnused throws if the weights are needed; asked again once the mark is there, which
 *   keeps aliases from being pointed at them
 * @returns bytes that were freed, or would be
 */
export async function pruneArtefact(
  target: string,
  artefact: string,
  kind: ArtefactDescription['kind'] | undefined,
  isDryRun: boolean,
  requireUnused: () => Promise<void>,
): Promise<number> {
  await requireUnused();
  const location = join(target, artefact);
  const entries = await readdir(location, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(location, join(entry.parentPath, entry.name)).replaceAll(sep, '/'))
    .filter((path) => isPrunable(path, kind));
  const sizes = await Promise.all(
    paths.map(async (path) => (await stat(join(location, path))).size),
  );
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  if (isDryRun) return bytes;
  if (paths.length > 0) {
    const attempt = await openAttempt(target, artefact, []);
    const mark = { prunedAt: new Date().toISOString(), files: paths };
    await writeFileDurably(join(attempt, PRUNED_FILE), `${JSON.stringify(mark, null, 2)}\n`);
    await rename(join(attempt, PRUNED_FILE), join(location, PRUNED_FILE));
    await syncDirectory(location);
    await requireUnused().catch(async (error: unknown) => {
      await rm(join(location, PRUNED_FILE));
      throw error;
    });
    for (const path of paths) await rm(join(location, path), { force: true });
    await syncDirectory(location);
  }
  await removeAttempts(target, artefact);
  return bytes;
}
