/** A merge of so many shards that it is carried on by new runs of its workflow. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { MergeShardInput } from '../../activities/types.ts';
import { mergeStatusQuery } from '../../workflows/messages.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import {
  failureOf,
  startRelease,
  startTestWorkers,
  type TestRelease,
} from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';
import { WorkerProcess } from '../harness/worker-process.ts';

const SHARDS = 12;
/** Where Temporal proposes a new run: after three or four shards. */
const EVENTS = 20;
/** Some seconds each, and those in which the server finds a worker dead. */
const TIMEOUT_MS = 240_000;

let server: TestServer;
let setup: ReleaseSetup;
let expected: ReadonlyMap<string, string>;

beforeAll(async () => {
  server = await startTestServer({ 'limit.historyCount.suggestContinueAsNew': EVENTS });
  const model = heavyModel({ layers: SHARDS, shards: SHARDS, extent: 512, rank: 512 });
  setup = await setUpRelease(join(server.directory, 'release'), model);
  const output = join(server.directory, 'expected');
  await mergeDirectories({ base: setup.base, adapter: setup.adapter, output, threads: 2 });
  expected = await checkpointDigests(output);
});
afterAll(async () => {
  await server.stop();
});
beforeEach(async () => {
  await rm(setup.home, { recursive: true, force: true });
});

const start = (name: string): Promise<TestRelease> =>
  startRelease(server.client, releaseInput(recipeOf(setup, { name })));

function mergeOf(release: TestRelease, runId?: string): WorkflowHandle {
  return server.client.workflow.getHandle(`${release.workflowId}/merge`, runId);
}

/** What the parent saw of its child: the run that it started, and how often one was completed. */
async function childOf(release: TestRelease): Promise<{ firstRun: string; completions: number }> {
  const { events } = await release.fetchHistory();
  const started = (events ?? []).flatMap(
    ({ childWorkflowExecutionStartedEventAttributes: each }) =>
      each?.workflowExecution?.runId ?? [],
  );
  expect(started).toHaveLength(1);
  const completed = (events ?? []).filter(
    ({ childWorkflowExecutionCompletedEventAttributes: each }) => each != null,
  );
  return { firstRun: started[0] ?? '', completions: completed.length };
}

interface Run {
  readonly events: number;
  /** Shards that were begun in it, in that order. */
  readonly shards: readonly number[];
}

/** All runs of the merge, the first one first. */
async function runsOf(release: TestRelease): Promise<Run[]> {
  const runs: Run[] = [];
  let runId: string | undefined = (await childOf(release)).firstRun;
  while (runId !== undefined) {
    const run: WorkflowHandle = mergeOf(release, runId);
    const { events } = await run.fetchHistory();
    const shards = (events ?? []).flatMap(({ activityTaskScheduledEventAttributes: scheduled }) => {
      const data = scheduled?.input?.payloads?.[0]?.data;
      if (data == null) return [];
      const input: MergeShardInput = JSON.parse(Buffer.from(data).toString('utf8'));
      return [input.shard];
    });
    runs.push({ events: events?.length ?? 0, shards });
    const last = events?.at(-1)?.workflowExecutionContinuedAsNewEventAttributes;
    runId = last?.newExecutionRunId ?? undefined;
  }
  return runs;
}

/** Waits for the run that follows `runId`. */
function nextRun(release: TestRelease, runId: string): Promise<string> {
  return waitFor('another run of the merge', async () => {
    const now = (await mergeOf(release).describe()).runId;
    return now === runId ? undefined : now;
  });
}

function firstRun(release: TestRelease): Promise<string> {
  return waitFor('the merge', async () => {
    const description = await mergeOf(release)
      .describe()
      .catch(() => undefined);
    return description?.runId;
  });
}

const EVERY_SHARD_ONCE = Array.from({ length: SHARDS }, (_, shard) => shard);

describe('a merge whose history grows long', () => {
  it(
    'goes on in new runs, each shard merged once, though its worker is killed between two',
    async () => {
      const launch = (): WorkerProcess => new WorkerProcess(server, setup.variables);
      let worker = await launch().ready();
      try {
        const release = await start('runs');
        await nextRun(release, await firstRun(release));
        await worker.kill();
        worker = launch();
        const { publications, directory } = await release.result();
        expect(publications).toHaveLength(1);
        expect(await checkpointDigests(directory)).toEqual(expected);
        const runs = await runsOf(release);
        expect(runs.length).toBeGreaterThan(2);
        expect(runs.flatMap(({ shards }) => shards)).toEqual(EVERY_SHARD_ONCE);
        for (const { events } of runs) expect(events).toBeLessThan(2 * EVENTS);
        expect((await childOf(release)).completions).toBe(1);
      } finally {
        await worker.kill();
      }
    },
    TIMEOUT_MS,
  );

  it(
    'tells of earlier runs, and hears of its cancellation in a later one',
    async () => {
      let workers = await startTestWorkers(server, setup.environment);
      try {
        const release = await start('cancelled');
        await nextRun(release, await firstRun(release));
        // Nobody merges the rest, so that there is something to cancel.
        await workers.stop();
        workers = await startTestWorkers(server, setup.environment, ['control']);
        const status = await mergeOf(release).query(mergeStatusQuery);
        expect(status.shardsTotal).toBe(SHARDS);
        expect(status.shardsDone).toBeGreaterThan(0);
        expect(status.bytesDone).toBe((status.bytesTotal / SHARDS) * status.shardsDone);
        await release.cancel();
        expect(await failureOf(release)).toBeDefined();
        expect((await release.describe()).status.name).toBe('CANCELLED');
        expect((await mergeOf(release).describe()).status.name).toBe('CANCELLED');
        const begun = (await runsOf(release)).flatMap(({ shards }) => shards);
        expect(begun.length).toBeLessThan(SHARDS);
      } finally {
        await workers.stop();
      }
    },
    TIMEOUT_MS,
  );
});
