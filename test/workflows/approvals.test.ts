/** A person's word: where a release waits for it, what it takes for one, and where it is recorded. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { WorkflowUpdateFailedError } from '@temporalio/client';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { type ApprovalRequest, approveUpdate, resumeSignal } from '../../workflows/messages.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import {
  startRelease,
  startTestWorkers,
  type TestRelease,
  waitForStatus,
} from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';

let server: TestServer;
let setup: ReleaseSetup;
let workers: RunningWorkers;

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpRelease(join(server.directory, 'release'));
  workers = await startTestWorkers(server, setup.environment);
});
afterAll(async () => {
  await workers.stop();
  await server.stop();
});

/** A release that waits for approval, and its artefact. */
async function waiting(version: string): Promise<{ handle: TestRelease; artefact: string }> {
  const recipe = recipeOf(setup, { name: 'asked', version, approval: 'required' });
  const handle = await startRelease(server.client, releaseInput(recipe));
  const status = await waitForStatus(handle, 'approval', (each) => each.waiting !== undefined);
  expect(status.waiting).toMatchObject({ stage: 'approve', needs: 'approval' });
  expect(status.waiting?.message).toContain('report.html');
  return { handle, artefact: status.inputs?.artefact ?? '' };
}

const published = () => readdir(setup.target).catch((): string[] => []);

const approve = (handle: TestRelease, request: ApprovalRequest) =>
  handle.executeUpdate(approveUpdate, { args: [request] });

it('comes before anything is published, and is recorded with it', async () => {
  const { handle, artefact } = await waiting('1.0.0');
  expect(await published()).not.toContain(artefact);
  await approve(handle, { by: 'ada' });
  const { approval, report } = await handle.result();
  expect(approval).toMatchObject({ by: 'ada' });
  const facts = JSON.parse(await readFile(join(setup.target, artefact, 'release.json'), 'utf8'));
  expect(facts.approval).toEqual(approval);
  expect(await readFile(report.html ?? '', 'utf8')).toContain('Approved by ada');
});

it('is no resume, and no reason that says nothing', async () => {
  const { handle, artefact } = await waiting('2.0.0');
  await handle.signal(resumeSignal);
  const blank = approve(handle, { by: 'ada', override: ' ' });
  await expect(blank).rejects.toBeInstanceOf(WorkflowUpdateFailedError);
  expect(await published()).not.toContain(artefact);
  await approve(handle, { by: 'ada' });
  await handle.result();
  expect(await published()).toContain(artefact);
});

it('is not waited for any more by a release that is cancelled', async () => {
  const { handle, artefact } = await waiting('3.0.0');
  await handle.cancel();
  await expect(handle.result()).rejects.toThrow();
  expect(await published()).not.toContain(artefact);
});
