/** Hosts with disks of their own: a release is done by one of them, as long as that is there. */
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readEnvironment } from '../../config/environment.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { statusQuery } from '../../workflows/messages.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import { DEPLOYMENT, setCurrentVersion } from '../harness/current-version.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import { doneBy, mergeOf, mergingNow } from '../harness/merge-work.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import {
  activityRuns,
  startRelease,
  startTestWorkers,
  type TestRelease,
  waitForStatus,
} from '../harness/running-release.ts';
import { StartedWorker } from '../harness/started-worker.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';
import { shareWorkflowBundle } from '../harness/workflow-bundle.ts';

const SHARDS = 6;
/** Longer than a busy machine keeps a worker from its heartbeats, and no longer. */
const HEARTBEAT_TIMEOUT_MS = 4_000;
/** A host that is there answers within this, also on a busy machine. */
const HOST_TIMEOUT_SECONDS = 4;
/** Nobody waits that long: a host that was killed is back before. */
const NEVER_SECONDS = 3_600;

let server: TestServer;
let setup: ReleaseSetup;
let expected: ReadonlyMap<string, string>;

beforeAll(async () => {
  server = await startTestServer();
  const model = heavyModel({ layers: SHARDS, shards: SHARDS, extent: 1024, rank: 768 });
  setup = await setUpRelease(join(server.directory, 'release'), model);
  const output = join(server.directory, 'expected');
  await mergeDirectories({ base: setup.base, adapter: setup.adapter, output, threads: 2 });
  expected = await checkpointDigests(output);
});
afterAll(() => server.stop());

function homeOf(host: string): string {
  return join(setup.directory, `home-${host}`);
}

async function startHost(host: string, timeoutSeconds: number): Promise<StartedWorker> {
  await shareWorkflowBundle(homeOf(host));
  const worker = new StartedWorker(server, {
    variables: {
      ...setup.variables,
      WELDLINE_STORAGE: 'local',
      WELDLINE_THREADS: '1',
      WELDLINE_HOST: host,
      WELDLINE_HOME: homeOf(host),
      WELDLINE_HOST_TIMEOUT: String(timeoutSeconds),
    },
  });
  expect(await worker.working()).toMatchObject({ host, storage: 'local' });
  return worker;
}

/** Starts a release whose shards are all scheduled at once, and waits until some are merged. */
async function startMerging(version: string): Promise<TestRelease> {
  const input = releaseInput(recipeOf(setup, { version }), {
    parallelShards: SHARDS,
    heartbeatTimeoutMs: HEARTBEAT_TIMEOUT_MS,
  });
  const release = await startRelease(server.client, input);
  const merge = mergeOf(server, release.workflowId);
  await waitFor('a merge that is under way', async () => {
    const isMerging = (await mergingNow(merge)).length > 0;
    return (isMerging && (await doneBy(merge)).length > 1) || undefined;
  });
  return release;
}

/** The finished shards of the only merge in a home, by their inodes. */
async function shardsIn(host: string): Promise<Map<string, number>> {
  const merges = join(homeOf(host), 'merges');
  const [digest = ''] = await readdir(merges);
  const shards = new Map<string, number>();
  for (const place of ['staging/files', 'sealed']) {
    const directory = join(merges, digest, place);
    for (const name of await readdir(directory).catch(() => [])) {
      if (!name.endsWith('.safetensors')) continue;
      shards.set(name, (await stat(join(directory, name))).ino);
    }
  }
  return shards;
}

it('goes on with a release where its disk is, and moves it whole if the host is gone', {
  timeout: 300_000,
}, async () => {
  const hosts = new Map([['one', await startHost('one', NEVER_SECONDS)]]);
  try {
    const back = await startMerging('1.0.0');
    await hosts.get('one')?.kill();
    const merged = await shardsIn('one');
    expect(merged.size).toBeGreaterThan(1);
    hosts.set('one', await startHost('one', HOST_TIMEOUT_SECONDS));
    const kept = await back.result();
    expect(await checkpointDigests(kept.publications[0]?.location ?? '')).toEqual(expected);
    expect(kept.directory.startsWith(homeOf('one'))).toBe(true);
    const now = await shardsIn('one');
    // Nothing was merged twice.
    for (const [name, inode] of merged) expect(now.get(name), name).toBe(inode);

    await rm(join(homeOf('one'), 'merges'), { recursive: true });
    hosts.set('other', await startHost('other', HOST_TIMEOUT_SECONDS));
    const moved = await startMerging('1.0.1');
    const before = await moved.query(statusQuery);
    const [gone, next] = before.host === 'one' ? ['one', 'other'] : ['other', 'one'];
    expect(before.host).toBe(gone);
    await hosts.get(gone)?.kill();
    const result = await moved.result();
    const after = await moved.query(statusQuery);
    expect(after).toMatchObject({ host: next, inputs: before.inputs });
    expect(result.directory.startsWith(homeOf(next))).toBe(true);
    expect(result.publications).toMatchObject([{ existed: false }]);
    expect(await checkpointDigests(result.publications[0]?.location ?? '')).toEqual(expected);
    const runs = (await activityRuns(moved)).map(({ type }) => type);
    expect(runs.filter((type) => type === 'place')).toHaveLength(2);
    expect(runs.filter((type) => type === 'resolveInputs')).toHaveLength(1);
    expect(runs.filter((type) => type === 'publish')).toHaveLength(1);
  } finally {
    await Promise.all([...hosts.values()].map((host) => host.kill()));
  }
});

it('does not take a host for gone that is busy', async () => {
  const small = await setUpRelease(join(server.directory, 'small'));
  const variables = {
    ...small.variables,
    WELDLINE_STORAGE: 'local',
    WELDLINE_HOST: 'busy',
    WELDLINE_HOME: homeOf('busy'),
    WELDLINE_HOST_TIMEOUT: String(HOST_TIMEOUT_SECONDS),
    // A host answers whatever the version of the release that asks.
    WELDLINE_DEPLOYMENT: DEPLOYMENT,
    WELDLINE_BUILD_ID: 'busy',
  };
  await shareWorkflowBundle(homeOf('busy'));
  const environment = readEnvironment(variables);
  // Nobody takes merges on: it could be at another.
  const busy = await startTestWorkers(server, environment, ['control', 'convert', 'gpu']);
  let free: RunningWorkers | undefined;
  try {
    await setCurrentVersion(server, 'busy');
    const input = releaseInput(recipeOf(small, { version: '1.0.2' }));
    const release = await startRelease(server.client, input);
    const merge = mergeOf(server, release.workflowId);
    await waitForStatus(
      release,
      'the merge',
      ({ mergeWorkflowId }) => mergeWorkflowId !== undefined,
    );
    await waitFor('the host to be asked', async () => {
      const runs = await activityRuns(merge).catch(() => []);
      return runs.filter(({ type }) => type === 'answer').length > 1 || undefined;
    });
    free = await startTestWorkers(server, environment, ['merge']);
    const { directory } = await release.result();
    expect(directory.startsWith(homeOf('busy'))).toBe(true);
    const runs = (await activityRuns(release)).map(({ type }) => type);
    expect(runs.filter((type) => type === 'place')).toHaveLength(1);
  } finally {
    await busy.stop();
    await free?.stop();
  }
}, 120_000);
