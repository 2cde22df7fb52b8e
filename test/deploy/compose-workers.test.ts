import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ROLES } from '../../workers/roles.ts';
import { startCommand } from '../harness/command.ts';
import { type ReleaseSetup, setUpRelease, writeRecipe } from '../harness/release-setup.ts';
import type { ServiceProcess } from '../harness/service-process.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { commandOf, createWorkers, workersPoll } from './compose-processes.ts';

/** Roles without which there is no release. */
const ENOUGH = ['control', 'merge'] as const;

let server: TestServer;
let setup: ReleaseSetup;
let workers: readonly ServiceProcess[] = [];

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpRelease(server.directory);
  workers = createWorkers(ENOUGH, server.directory, server.address, setup.variables);
  for (const worker of workers) worker.start();
});

afterAll(async () => {
  await Promise.all(workers.map((worker) => worker.stop()));
  await server.stop();
});

test('the workers of docker-compose.yml serve every queue, and release together', async () => {
  await workersPoll(server.client, ENOUGH);
  const variables = { ...setup.variables, TEMPORAL_ADDRESS: server.address };
  const release = await startCommand(['release', await writeRecipe(setup)], { variables });
  const { status, stdout, stderr } = await release.ended;
  expect(status, stdout + stderr).toBe(0);
  const [, published = ''] = /^ {2}published +(\S+)/m.exec(stdout) ?? [];
  expect(JSON.parse(await readFile(join(published, 'release.json'), 'utf8'))).toMatchObject({
    version: '1.0.0',
  });
  // None ended: it would be started again for good.
  expect(workers.map(({ isRunning }) => isRunning)).toEqual([true, true]);
  const { events } = await server.client.workflow
    .getHandle('release-tone-model-1.0.0/merge')
    .fetchHistory();
  const identities = (events ?? []).flatMap(
    ({ activityTaskStartedEventAttributes: started }) => started?.identity ?? [],
  );
  // The SDK's identity of a worker: process id, then host name.
  expect(identities.length).toBeGreaterThan(0);
  expect(identities.filter((name) => !name.startsWith(`${workers[1]?.pid}@`))).toEqual([]);
}, 120_000);

test('the other workers have roles that there are', () => {
  for (const role of ROLES) {
    expect(commandOf(`worker-${role}`)).toEqual(['worker', '--role', role]);
  }
});
