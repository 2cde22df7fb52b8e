/** Several worker processes with roles of their own that share one home. */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { presenceQueue } from '../../workers/task-queues.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import { doneBy, mergeOf, mergingNow } from '../harness/merge-work.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import { startRelease } from '../harness/running-release.ts';
import { StartedWorker } from '../harness/started-worker.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';

const SHARDS = 12;
/** Longer than a busy machine keeps a worker from its heartbeats, and no longer. */
const HEARTBEAT_TIMEOUT_MS = 4_000;
const EXIT_USAGE = 2;

let server: TestServer;
let setup: ReleaseSetup;
let expected: ReadonlyMap<string, string>;

beforeAll(async () => {
  server = await startTestServer();
  // Files of 4 MB, each the work of a quarter of a second or more on a fast idle machine.
  const model = heavyModel({ layers: SHARDS, shards: SHARDS, extent: 1024, rank: 2048 });
  setup = await setUpRelease(join(server.directory, 'release'), model);
  const output = join(server.directory, 'expected');
  await mergeDirectories({ base: setup.base, adapter: setup.adapter, output, threads: 2 });
  expected = await checkpointDigests(output);
});
afterAll(() => server.stop());

it('merges the shards of one release in several processes, though some of them go', {
  timeout: 120_000,
}, async () => {
  const variables = { ...setup.variables, WELDLINE_THREADS: '1' };
  const start = (...roles: string[]) => new StartedWorker(server, { roles, variables });
  const [control, killed, stopped] = [start('control', 'merge'), start('merge'), start('merge')];
  try {
    const { queues } = (await control.working()) as { queues: Record<string, number> };
    expect(queues['weldline-merge']).toBe(1);
    expect(queues).toHaveProperty('weldline');
    const { queues: merging } = await killed.working();
    expect(merging).toEqual({ 'weldline-merge': 1, [presenceQueue(hostname())]: 1 });
    await stopped.working();
    const input = releaseInput(recipeOf(setup), {
      parallelShards: 3,
      heartbeatTimeoutMs: HEARTBEAT_TIMEOUT_MS,
    });
    const release = await startRelease(server.client, input);
    const merge = mergeOf(server, release.workflowId);
    /** A process that has merged a shard, and is at another. */
    const isAtWork = (worker: StartedWorker) => async () =>
      ((await mergingNow(merge)).includes(worker.pid) &&
        (await doneBy(merge)).includes(worker.pid)) ||
      undefined;
    await waitFor('the one to kill to merge', isAtWork(killed));
    await killed.kill();
    await waitFor('the one to stop to merge', isAtWork(stopped));
    expect(await stopped.stop()).toBe(0);
    const { publications } = await release.result();
    expect(await checkpointDigests(publications[0]?.location ?? '')).toEqual(expected);
    const merged = await doneBy(merge);
    expect(merged).toHaveLength(SHARDS);
    expect(new Set(merged)).toEqual(new Set([control, killed, stopped].map(({ pid }) => pid)));
    expect(new Set(await doneBy(release))).toEqual(new Set([control.pid]));
    expect(await control.stop()).toBe(0);
  } finally {
    await Promise.all([control, killed, stopped].map((worker) => worker.kill()));
  }
});

it('says what is wrong with its roles, and ends', async () => {
  const variables = { ...setup.variables, WELDLINE_STORAGE: 'local', WELDLINE_HOST: 'node-7' };
  const worker = new StartedWorker(server, { roles: ['merge'], variables });
  expect(await worker.exited()).toBe(EXIT_USAGE);
  await expect(worker.working()).rejects.toThrow(/cli\.usage.*node-7 does its releases alone/);
});
