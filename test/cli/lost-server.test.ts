/** A server that has lost its database: the workspace knows what was released, and has what is merged. */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { mergeWorkspace } from '../../activities/workspace.ts';
import { mergeStatusQuery, statusQuery } from '../../workflows/messages.ts';
import { weldlineHere } from '../harness/command-here.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import { startRelease, startTestWorkers } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';

const FIRST = 'model-00001-of-00002.safetensors';

let directory: string;
let setup: ReleaseSetup;
let server: TestServer;
let stop = async (): Promise<void> => {};

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-lost-'));
  setup = await setUpRelease(directory, {
    ...heavyModel({ layers: 4, shards: 2, extent: 1024, rank: 768 }),
    variables: { WELDLINE_THREADS: '1' },
  });
  vi.stubEnv('WELDLINE_HOME', setup.home);
  await startServer();
});
afterAll(async () => {
  await stop();
  await server.stop();
  await rm(directory, { recursive: true, force: true });
  vi.unstubAllEnvs();
});

async function startServer(): Promise<void> {
  server = await startTestServer();
  vi.stubEnv('TEMPORAL_ADDRESS', server.address);
  const workers = await startTestWorkers(server, setup.environment);
  stop = () => workers.stop();
}

it('resume begins again from the workspace, and merges no shard twice', async () => {
  const release = await startRelease(
    server.client,
    releaseInput(recipeOf(setup), { parallelShards: 1 }),
  );
  const plan = await waitFor('the first shard', async () => {
    const status = await release.query(statusQuery);
    if (status.mergeWorkflowId === undefined) return undefined;
    const child = server.client.workflow.getHandle(status.mergeWorkflowId);
    const merge = await child.query(mergeStatusQuery).catch(() => undefined);
    return merge !== undefined && merge.shardsDone > 0 ? status.plan : undefined;
  });
  const { staging, sealed } = mergeWorkspace(setup.home, plan?.digest ?? '');
  // On a fast machine the second one is done by now, too.
  const before = await stat(join(staging.files, FIRST)).catch(() => stat(join(sealed, FIRST)));
  await stop();
  await server.stop();

  await startServer();
  const unknown = await weldlineHere('resume', '--json');
  expect(unknown.status).toBe(1);
  const { error } = JSON.parse(unknown.stdout);
  expect(error.code).toBe('release.not-found');
  expect(error.message).toContain('release-tone-model-1.0.0 (weldline resume NAME)');

  const resumed = await weldlineHere('resume', 'tone-model-1.0.0');
  expect(resumed.status, resumed.stderr).toBe(0);
  expect(resumed.stderr).toContain('The server does not know tone-model-1.0.0');
  expect(resumed.stdout).toMatch(/^Released merged-tiny-1\.0\.0-adapter-tone-/m);
  const after = await stat(join(sealed, FIRST));
  expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs]);
});

it('says which input is not where it was, on another machine', async () => {
  const kept = join(setup.home, 'runs', 'release-tone-model-1.0.0.json');
  const { recipe, recipeDigest } = JSON.parse(await readFile(kept, 'utf8'));
  const moved = { ...recipe, name: 'moved', base: { model: '/not/on/this/machine' } };
  const path = join(setup.home, 'runs', 'release-moved-1.0.0.json');
  await writeFile(path, JSON.stringify({ recipe: moved, recipeDigest }));
  const resumed = await weldlineHere('resume', 'moved-1.0.0');
  expect(resumed.status).toBe(1);
  expect(resumed.stderr).toContain('[source.not-found]');
  expect(resumed.stderr).toContain('/not/on/this/machine');
});

it('refuses what weldline did not write', async () => {
  await writeFile(join(setup.home, 'runs', 'release-cut-1.0.0.json'), '{"recipe": {');
  const { status, stderr } = await weldlineHere('resume', 'cut-1.0.0');
  expect(status).toBe(1);
  expect(stderr).toContain('release-cut-1.0.0.json is not the input of a release');
});
