/** Releases whose host, with a disk of its own, is gone while a person is asked or says stop. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readEnvironment } from '../../config/environment.ts';
import { parseRecipe } from '../../config/recipe.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { approveUpdate, statusQuery } from '../../workflows/messages.ts';
import {
  type ReleaseSetup,
  recipeText,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import {
  activityRuns,
  startRelease,
  startTestWorkers,
  waitForStatus,
} from '../harness/running-release.ts';
import { type ScriptedEndpoint, startScriptedEndpoint } from '../harness/scripted-endpoint.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { shareWorkflowBundle } from '../harness/workflow-bundle.ts';

/** A host that is there answers within this, also on a busy machine. */
const HOST_TIMEOUT_SECONDS = 6;

let server: TestServer;
let setup: ReleaseSetup;
let endpoint: ScriptedEndpoint;
let host: RunningWorkers;

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpRelease(join(server.directory, 'release'));
  endpoint = await startScriptedEndpoint(setup.directory);
  endpoint.regressed = true;
});
afterAll(async () => {
  await endpoint.close();
  await host.stop();
  await server.stop();
});

async function startHost(name: string): Promise<RunningWorkers> {
  const home = join(setup.directory, name);
  await shareWorkflowBundle(home);
  const variables = {
    WELDLINE_HOME: home,
    WELDLINE_STORAGE: 'local',
    WELDLINE_HOST: name,
    WELDLINE_HOST_TIMEOUT: String(HOST_TIMEOUT_SECONDS),
  };
  return startTestWorkers(server, readEnvironment({ ...setup.variables, ...variables }));
}

it('asks again for an override of what another host has made, and is cancelled without its host', {
  timeout: 240_000,
}, async () => {
  host = await startHost('one');
  const text = `${recipeText(setup)}evaluate: ${JSON.stringify(endpoint.evaluate)}\n`;
  const recipe = parseRecipe(text, join(setup.directory, 'recipe.yaml'));
  const release = await startRelease(server.client, releaseInput(recipe));
  const isAsking = (name: string) =>
    waitForStatus(
      release,
      `the question of ${name}`,
      (status) => status.host === name && status.waiting?.needs === 'override',
    );
  await isAsking('one');
  await host.stop();
  host = await startHost('two');
  await release.executeUpdate(approveUpdate, { args: [{ by: 'ada', override: 'a known gap' }] });
  const { stages, movedFrom } = await isAsking('two');
  expect(movedFrom).toEqual(['one']);
  expect(stages.find(({ stage }) => stage === 'report')?.state).toBe('pending');
  // The one that found the host gone; nothing was published by a word that was given to other files.
  const runs = await activityRuns(release);
  expect(runs.filter(({ type }) => type === 'publish')).toMatchObject([{ attempts: 0 }]);

  await host.stop();
  host = await startHost('three');
  await release.cancel();
  await expect(release.result()).rejects.toMatchObject({ cause: { name: 'CancelledFailure' } });
  expect((await release.query(statusQuery)).cleanedUp).toEqual({ removed: [] });
});
