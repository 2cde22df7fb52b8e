/** Which releases aliases follow by themselves. */
import { mkdir, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { expect, test } from 'vitest';
import type { Dependencies } from '../../activities/dependencies.ts';
import { createPublishActivities } from '../../activities/publish-activities.ts';
import { readEnvironment } from '../../config/environment.ts';
import type { Recipe } from '../../config/recipe.ts';
import { createLogger } from '../../workers/logger.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

/** A directory with releases by the time at which each was begun. */
async function target(releases: Readonly<Record<string, string>>): Promise<string> {
  const directory = await temporaryDirectory();
  for (const [release, startedAt] of Object.entries(releases)) {
    await mkdir(join(directory, release));
    const record = {
      ...{ format: 'weldline.release', name: 'tone', release, kind: 'merged' },
      ...{ manifestDigest: 'a'.repeat(64), plan: 'b'.repeat(64), run: { startedAt } },
    };
    await writeFile(join(directory, release, 'release.json'), JSON.stringify(record));
  }
  return directory;
}

async function move(path: string, release: string, startedAt: string) {
  const dependencies = { home: path, publishing: readEnvironment({ WELDLINE_HOME: path }) };
  const { moveAliases } = createPublishActivities(dependencies as unknown as Dependencies);
  const recipe = { publish: [{ directory: { path }, aliases: ['latest'] }] };
  const environment = new MockActivityEnvironment(undefined, { logger: createLogger('error') });
  const input = { recipe: recipe as unknown as Recipe, release, target: 0, startedAt };
  return (await environment.run(moveAliases, input)) as Awaited<ReturnType<typeof moveAliases>>;
}

const MONDAY = '2026-11-23T10:00:00.000Z';
const FRIDAY = '2026-11-27T10:00:00.000Z';

test('an alias follows a release that was begun after the one it points at', async () => {
  const path = await target({ 'merged-1': MONDAY, 'merged-2': FRIDAY });
  const moved = [{ alias: 'latest', target: path }];
  expect(await move(path, 'merged-1', MONDAY)).toEqual({ moved, warnings: [] });
  expect(await move(path, 'merged-2', FRIDAY)).toEqual({ moved, warnings: [] });
  // It points there already.
  expect(await move(path, 'merged-2', FRIDAY)).toEqual({ moved: [], warnings: [] });
  expect(await readlink(join(path, 'latest'))).toBe('merged-2');
});

test('it does not go back to one that waited for a person meanwhile', async () => {
  const path = await target({ 'merged-1': MONDAY, 'merged-2': FRIDAY });
  await move(path, 'merged-2', FRIDAY);
  const { moved, warnings } = await move(path, 'merged-1', MONDAY);
  expect(moved).toEqual([]);
  expect(warnings).toEqual([expect.stringContaining('begun after merged-1')]);
  expect(await readlink(join(path, 'latest'))).toBe('merged-2');
});

test('nor to one that was published before', async () => {
  const path = await target({ 'merged-1': MONDAY, 'merged-2': MONDAY });
  await move(path, 'merged-2', MONDAY);
  const { warnings } = await move(path, 'merged-1', FRIDAY);
  expect(warnings).toEqual([expect.stringContaining('merged-1 was published before')]);
  expect(await readlink(join(path, 'latest'))).toBe('merged-2');
});
