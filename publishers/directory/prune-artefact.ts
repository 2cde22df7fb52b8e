import { readdir, rm, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { syncDirectory, writeFileDurably } from '../../engine/durable-files.ts';
import type { ArtefactDescription } from '../publisher.ts';
import { isPrunable, PRUNED_FILE } from '../release-record.ts';

/**
 * Removes the weights of a published artefact. The mark is written first: one that was pruned half is
 * known as such, and pruned to the end by the next who tries.
 *
 * @param location directory of the artefact
 * @returns bytes that were freed, or would be
 */
export async function pruneArtefact(
  location: string,
  kind: ArtefactDescription['kind'] | undefined,
  now: Date,
  isDryRun: boolean,
): Promise<number> {
  const entries = await readdir(location, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(location, join(entry.parentPath, entry.name)).replaceAll(sep, '/'))
    .filter((path) => isPrunable(path, kind));
  const sizes = await Promise.all(
    paths.map(async (path) => (await stat(join(location, path))).size),
  );
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  if (isDryRun || paths.length === 0) return bytes;
  const mark = { prunedAt: now.toISOString(), files: paths };
  await writeFileDurably(join(location, PRUNED_FILE), `${JSON.stringify(mark, null, 2)}\n`);
  for (const path of paths) await rm(join(location, path));
  await syncDirectory(location);
  return bytes;
}
