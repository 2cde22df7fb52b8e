import { readdir, readFile } from 'node:fs/promises';
import { z } from 'zod';
import type { ReleaseContext } from '../activities/types.ts';
import { runFile, runsDirectory } from '../activities/workspace.ts';
import { toReadError } from '../engine/disk-errors.ts';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import { possibleIds } from '../workflows/release-id.ts';

/** What everything else depends on; the rest was checked when the recipe was read. */
const schema = z.looseObject({
  recipe: z.looseObject({
    name: z.string(),
    version: z.string(),
    base: z.looseObject({ model: z.string() }),
    adapters: z.array(z.looseObject({ id: z.string(), model: z.string() })).min(1),
    publish: z.array(z.unknown()),
  }),
  recipeDigest: z.string().regex(/^[0-9a-f]{64}$/),
});

/**
 * What a run was started with, where its server does not know it any more.
 *
 * @param id of the run, or what comes behind `release-`
 * @returns undefined where the workspace knows no such run
 * @throws WeldlineError `disk.read-failed`, `release.not-found` if the file is not what was written
 */
export async function readStoredRun(home: string, id: string): Promise<ReleaseContext | undefined> {
  for (const candidate of possibleIds(id)) {
    const path = runFile(home, candidate);
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      // No run has a name that is too long for a file.
      if (['ENOENT', 'ENAMETOOLONG'].includes(systemErrorCode(error) ?? '')) continue;
      throw toReadError(error, path);
    }
    return parse(text, path);
  }
  return undefined;
}

/** Ids of all runs that the workspace knows. */
export async function storedRuns(home: string): Promise<readonly string[]> {
  const names = await readdir(runsDirectory(home)).catch((): string[] => []);
  return names.flatMap((name) => {
    const id = /^([^.].*)\.json$/.exec(name)?.[1];
    return id === undefined ? [] : [decodeURIComponent(id)];
  });
}

function parse(text: string, path: string): ReleaseContext {
  try {
    schema.parse(JSON.parse(text));
    return JSON.parse(text) as ReleaseContext;
  } catch (error) {
    throw new WeldlineError(
      'release.not-found',
      `${path} is not the input of a release as weldline wrote it. Run weldline release <recipe> ` +
        'again; finished work is found.',
      { cause: error },
    );
  }
}
