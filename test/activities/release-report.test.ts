/** What a report shows of suites that are no longer what they were when they were asked. */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { suitesAsAsked } from '../../activities/release-report.ts';
import { loadSuites } from '../../evaluation/load-suites.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

const LINE = '{"prompt": "Q: 5+3 A:", "expected": "8"}\n';

test('suites stand in the report as they were asked, or not at all', async () => {
  const directory = await temporaryDirectory();
  const path = (id: string): string => join(directory, `${id}.jsonl`);
  const ids = ['same', 'edited', 'gone', 'broken'];
  const suites = ids.map((id) => ({
    ...{ id, data: path(id), adapter: 'a', matcher: 'exact' as const },
    ...{ newTokensMax: 8, dropMax: 0 },
  }));
  for (const id of ids) await writeFile(path(id), LINE);
  const asked = await loadSuites(suites, directory);
  const results = asked.map(({ id, digest }) => ({ suite: id, suiteDigest: digest }));

  expect((await suitesAsAsked(suites, directory, results)).map(({ id }) => id)).toEqual(ids);
  await writeFile(path('edited'), LINE.replace('8', '9'));
  await writeFile(path('broken'), 'no JSON\n');
  await rm(path('gone'));
  expect((await suitesAsAsked(suites, directory, results)).map(({ id }) => id)).toEqual(['same']);
});
