/** One release to more targets than Temporal would be told of at once, of which one fails. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { approveUpdate, resumeSignal } from '../../workflows/messages.ts';
import { readFiles } from '../doubles/merge-directories.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import { startRelease, startTestWorkers, waitForStatus } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';

const TARGETS = 20;

let server: TestServer;
let setup: ReleaseSetup;
let workers: RunningWorkers;
beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpRelease(join(server.directory, 'release'));
  workers = await startTestWorkers(server, setup.environment);
});
afterAll(async () => {
  await workers?.stop();
  await server?.stop();
});

it('is at all others while one waits for a person, and goes on where it stopped', async () => {
  const targets = Array.from({ length: TARGETS }, (_, index) => join(setup.target, `${index}`));
  const recipe = recipeOf(setup, { targets, approval: 'required' });
  const handle = await startRelease(server.client, releaseInput(recipe));
  const isApproval = (needs: string | undefined) => needs === 'approval';
  await waitForStatus(handle, 'approval', ({ waiting }) => isApproval(waiting?.needs));
  // In the first batch, and not seen in preflight.
  const blocked = targets[2] ?? '';
  await rm(blocked, { recursive: true, force: true });
  await mkdir(setup.target, { recursive: true });
  await writeFile(blocked, 'no directory');
  await handle.executeUpdate(approveUpdate, { args: [{ by: 'someone' }] });
  const isBlocked = (stage: string | undefined) => stage === 'publish';
  const { waiting, inputs } = await waitForStatus(handle, 'the blocked target', (status) =>
    isBlocked(status.waiting?.stage),
  );
  expect(waiting?.message).toContain(blocked);
  const artefact = inputs?.artefact ?? '';
  const [first = '', ...others] = targets.filter((target) => target !== blocked);
  const published = await readFiles(join(first, artefact));
  expect(published.has('release.json')).toBe(true);
  for (const target of others) {
    expect(await readFiles(join(target, artefact)), target).toEqual(published);
  }
  await rm(blocked);
  await handle.signal(resumeSignal);
  const { publications } = await handle.result();
  // All are this run's, and only the one that was blocked is sent now.
  expect(publications.map(({ existed }) => existed)).toEqual(targets.map(() => false));
  expect(publications.filter(({ bytesSent }) => bytesSent !== 0)).toMatchObject([
    { location: join(blocked, artefact) },
  ]);
  expect(await readFiles(join(blocked, artefact))).toEqual(published);

  // What a workflow decides at once lies between two of its tasks.
  let scheduled = 0;
  let most = 0;
  for (const event of (await handle.fetchHistory()).events ?? []) {
    if (event.workflowTaskCompletedEventAttributes != null) scheduled = 0;
    if (event.activityTaskScheduledEventAttributes != null) scheduled += 1;
    most = Math.max(most, scheduled);
  }
  expect(most).toBe(16);
});
