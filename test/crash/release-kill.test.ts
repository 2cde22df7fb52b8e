/** Workers that are killed in the middle of the merge, again and again. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type WorkflowHandle, WorkflowNotFoundError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { Random } from '../doubles/random.ts';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import { activityRuns, startRelease, type TestRelease } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';
import { WorkerProcess } from '../harness/worker-process.ts';

const KILLS = 10;
/** Workers at the same time: while one is found dead and replaced, the others go on. */
const FLEET = 3;
/** Each attempt after a kill waits twice as long as the one before: so not too often the same. */
const KILLS_PER_SHARD = 2;
const SHARDS = 8;
/** Longer than a busy machine keeps a worker from its heartbeats, and no longer. */
const HEARTBEAT_TIMEOUT_MS = 4_000;
/** A kill strikes within this time after its victim was seen at work. */
const DELAY_MS_MAX = 100;

/** `PENDING_ACTIVITY_STATE_STARTED` of Temporal's API: a worker has taken it and is at work. */
const STARTED = 2;

let server: TestServer;
let setup: ReleaseSetup;
let expected: ReadonlyMap<string, string>;

beforeAll(async () => {
  server = await startTestServer();
  // Files of 6.5 MB, each the work of half a second or more on a fast idle machine.
  const model = heavyModel({ layers: SHARDS, shards: SHARDS, extent: 1280, rank: 3072 });
  setup = await setUpRelease(join(server.directory, 'release'), model);
  const output = join(server.directory, 'expected');
  await mergeDirectories({ base: setup.base, adapter: setup.adapter, output, threads: 2 });
  expected = await checkpointDigests(output);
});
afterAll(async () => {
  await server.stop();
});

/** The workflow that merges; its id is not asked for, since a query needs a worker that lives. */
function mergeOf(release: TestRelease): WorkflowHandle {
  return server.client.workflow.getHandle(`${release.workflowId}/merge`);
}

/** The processes that merge a shard not killed too often yet, as the server knows them. */
async function mergingPids(release: TestRelease): Promise<number[]> {
  try {
    const { raw } = await mergeOf(release).describe();
    return (raw.pendingActivities ?? [])
      .filter(({ state, attempt }) => state === STARTED && (attempt ?? 0) <= KILLS_PER_SHARD)
      .map(({ lastWorkerIdentity }) => Number.parseInt(lastWorkerIdentity ?? '', 10));
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return [];
    throw error;
  }
}

describe.each([1, 4])('a release with %i threads whose workers are killed', (threads) => {
  it(`makes the same bytes after ${KILLS} kills`, async () => {
    await rm(setup.home, { recursive: true, force: true });
    const random = new Random(threads);
    const variables = { ...setup.variables, WELDLINE_THREADS: String(threads) };
    const name = `killed-${threads}`;
    const start = (): WorkerProcess => new WorkerProcess(server, variables);
    const fleet = await Promise.all(Array.from({ length: FLEET }, () => start().ready()));
    try {
      const input = releaseInput(recipeOf(setup, { name }), {
        parallelShards: FLEET,
        heartbeatTimeoutMs: HEARTBEAT_TIMEOUT_MS,
      });
      const release = await startRelease(server.client, input);
      let kills = 0;
      for (; kills < KILLS; kills++) {
        const index = await waitFor('a worker that merges', async () => {
          const pids = await mergingPids(release);
          const merging = fleet.flatMap(({ pid }, at) => (pids.includes(pid) ? [at] : []));
          return merging.length === 0 ? undefined : random.pick(merging);
        });
        await sleep(random.below(DELAY_MS_MAX));
        await fleet[index]?.kill();
        fleet[index] = start();
      }
      const { publications } = await release.result();
      expect(await checkpointDigests(publications[0]?.location ?? '')).toEqual(expected);
      const merges = await activityRuns(mergeOf(release));
      const attempts = merges.reduce((sum, run) => sum + run.attempts, 0);
      expect(merges).toHaveLength(SHARDS);
      console.log(`${threads} threads: ${kills} kills, ${attempts} attempts for ${SHARDS} shards`);
      // A kill that came just after a shard was finished costs no attempt; most do cost one.
      expect(attempts).toBeGreaterThan(SHARDS + KILLS / 2);
    } finally {
      await Promise.all(fleet.map((worker) => worker.kill()));
    }
  }, 240_000);
});
