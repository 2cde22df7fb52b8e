/** Two versions of the workers at once, as in a deployment. */
import { join } from 'node:path';
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readEnvironment } from '../../config/environment.ts';
import { ENGINE_VERSION } from '../../engine/version.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { deploymentOptions, workerVersion } from '../../workers/worker-version.ts';
import { approveUpdate } from '../../workflows/messages.ts';
import { DEPLOYMENT, setCurrentVersion } from '../harness/current-version.ts';
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

/** `PINNED_OVERRIDE_BEHAVIOR_PINNED` of Temporal's API. */
const OVERRIDE_PINNED = 1;

let server: TestServer;
let setup: ReleaseSetup;

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpRelease(join(server.directory, 'release'));
});
afterAll(() => server.stop());

function startVersion(buildId: string): Promise<RunningWorkers> {
  const variables = { WELDLINE_DEPLOYMENT: DEPLOYMENT, WELDLINE_BUILD_ID: buildId };
  return startTestWorkers(server, readEnvironment({ ...setup.variables, ...variables }));
}

/** A release that waits for a person. */
async function startWaiting(name: string, version: string): Promise<TestRelease> {
  const recipe = recipeOf(setup, { name, version, approval: 'required' });
  const release = await startRelease(server.client, releaseInput(recipe));
  await waitForStatus(release, 'approval', ({ waiting }) => waiting?.needs === 'approval');
  return release;
}

/** As `temporal workflow update-options` does. */
async function moveTo(buildId: string, workflowId: string): Promise<void> {
  const version = { deploymentName: DEPLOYMENT, buildId };
  await server.client.workflowService.updateWorkflowExecutionOptions({
    namespace: server.namespace,
    workflowExecution: { workflowId },
    workflowExecutionOptions: {
      versioningOverride: { pinned: { behavior: OVERRIDE_PINNED, version } },
    },
    updateMask: { paths: ['versioning_override'] },
  });
}

async function versionsOf(handle: WorkflowHandle): Promise<ReadonlySet<string>> {
  const { events } = await handle.fetchHistory();
  const versions = (events ?? []).flatMap(({ workflowTaskCompletedEventAttributes: task }) =>
    task == null ? [] : [task.deploymentVersion?.buildId ?? task.workerDeploymentVersion ?? ''],
  );
  return new Set(versions);
}

it('finishes a release on the version that it began on, and begins others on the current one', {
  timeout: 120_000,
}, async () => {
  const workers = [await startVersion('a')];
  try {
    await setCurrentVersion(server, 'a');
    const waiting = await startWaiting('waiting', '1.0.0');
    const moved = await startWaiting('moved', '1.0.1');
    workers.push(await startVersion('b'));
    await setCurrentVersion(server, 'b');
    const next = await startRelease(
      server.client,
      releaseInput(recipeOf(setup, { name: 'next', version: '2.0.0' })),
    );
    await next.result();
    await waiting.executeUpdate(approveUpdate, { args: [{ by: 'someone' }] });
    await waiting.result();
    expect(await versionsOf(next)).toEqual(new Set(['b']));
    expect(await versionsOf(waiting)).toEqual(new Set(['a']));
    const merge = server.client.workflow.getHandle(`${waiting.workflowId}/merge`);
    expect(await versionsOf(merge)).toEqual(new Set(['a']));

    await moveTo('b', moved.workflowId);
    await workers.shift()?.stop();
    await moved.executeUpdate(approveUpdate, { args: [{ by: 'someone' }] });
    await moved.result();
    expect(await versionsOf(moved)).toEqual(new Set(['a', 'b']));
  } finally {
    await Promise.all(workers.map((each) => each.stop()));
  }
});

it('is called what the operator says, or what its workflows are', () => {
  const { worker } = readEnvironment({ WELDLINE_HOME: '/x', WELDLINE_DEPLOYMENT: 'weldline' });
  const { buildId } = workerVersion(worker, 'code');
  expect(buildId).toMatch(new RegExp(`^${ENGINE_VERSION}-[0-9a-f]{12}$`));
  expect(workerVersion(worker, 'other code').buildId).not.toBe(buildId);
  const deployment = { name: 'weldline', buildId: 'v7' };
  expect(workerVersion({ ...worker, deployment }, 'code').buildId).toBe('v7');
  expect(deploymentOptions({ buildId: 'v7' })).toEqual({});
});
