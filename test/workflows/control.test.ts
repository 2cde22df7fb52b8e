/** What a person does to a release that runs: pause it, go on with it, begin a stage again, cancel it. */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { WithStartWorkflowOperation } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ActivityProgress } from '../../activities/heartbeat.ts';
import { mergeWorkspace } from '../../activities/workspace.ts';
import { TASK_QUEUE } from '../../workers/task-queues.ts';
import {
  approveUpdate,
  pauseUpdate,
  type ReleaseStatus,
  resumeSignal,
  retryUpdate,
  type Stage,
  statusQuery,
} from '../../workflows/messages.ts';
import type { releaseModel } from '../../workflows/release-model.ts';
import { startMerging } from '../harness/activity-worker.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import {
  type RecipeChanges,
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import {
  activityRuns,
  heartbeatsOf,
  startRelease,
  startTestWorkers,
  type TestRelease,
  waitForStatus,
} from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';

let server: TestServer;
let setup: ReleaseSetup;
let stop: () => Promise<void>;
let count = 0;

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpRelease(join(server.directory, 'small'));
  const workers = await startTestWorkers(server, setup.environment);
  stop = () => workers.stop();
});
afterAll(async () => {
  await stop();
  await server.stop();
});

const start = (of: ReleaseSetup, changes: RecipeChanges = {}): Promise<TestRelease> =>
  startRelease(
    server.client,
    releaseInput(recipeOf(of, { version: `1.0.${count++}`, ...changes })),
  );

const pause = (release: TestRelease) =>
  release.executeUpdate(pauseUpdate, { args: [{ by: 'ann' }] });

const retry = (release: TestRelease, stage: string) =>
  release.executeUpdate(retryUpdate, { args: [stage as Stage] });

const reasonOf = (update: Promise<unknown>): Promise<string> =>
  update.then(
    () => 'not refused',
    (error: Error) => (error.cause as Error | undefined)?.message ?? error.message,
  );

const stateOf = (status: ReleaseStatus, stage: Stage) =>
  status.stages.find((each) => each.stage === stage)?.state;

const isAwaited = ({ waiting }: ReleaseStatus) => waiting !== undefined;

describe('a merge that is paused', () => {
  let heavy: ReleaseSetup;
  let stopHeavy: () => Promise<void>;
  beforeAll(async () => {
    await stop();
    heavy = await setUpRelease(join(server.directory, 'heavy'), {
      ...heavyModel({ layers: 8, shards: 1, extent: 2048, rank: 1536 }),
      variables: { WELDLINE_THREADS: '1' },
    });
    const workers = await startTestWorkers(server, heavy.environment, ['control']);
    const stopMerging = await startMerging(server, heavy.environment);
    stopHeavy = async () => {
      await stopMerging();
      await workers.stop();
    };
  });
  afterAll(async () => {
    await stopHeavy();
    const workers = await startTestWorkers(server, setup.environment);
    stop = () => workers.stop();
  });

  /** What the merge says of itself in the middle. */
  const beatOf = async (release: TestRelease): Promise<ActivityProgress | undefined> => {
    const { mergeWorkflowId } = await release.query(statusQuery);
    if (mergeWorkflowId === undefined) return undefined;
    const child = server.client.workflow.getHandle(mergeWorkflowId);
    const beats = await heartbeatsOf(child).catch(() => []);
    return beats.find(({ item }) => item !== '');
  };

  it('stops, keeps its journal, and goes on where it was', async () => {
    const release = await start(heavy);
    await waitFor('a heartbeat of the merge', () => beatOf(release));
    await pause(release);
    expect(await reasonOf(pause(release))).toBe('The release is paused already.');
    expect(await reasonOf(retry(release, 'merge'))).toContain('is paused');
    const paused = await waitForStatus(
      release,
      'paused',
      (status) => stateOf(status, 'merge') === 'paused',
    );
    expect(paused.paused).toMatchObject({ by: 'ann', at: expect.stringMatching(/^20.*Z$/) });
    const { pendingActivities } = (await release.describe()).raw;
    expect(pendingActivities ?? []).toEqual([]);
    const child = server.client.workflow.getHandle(paused.mergeWorkflowId ?? '');
    expect((await child.describe()).status.name).toBe('CANCELLED');
    const { staging } = mergeWorkspace(heavy.home, paused.plan?.digest ?? '');
    const journal = join(staging.journals, 'model.safetensors.jsonl');
    const written = endOf(await readFile(journal, 'utf8'));
    expect(written).toBeGreaterThan(0);

    await release.signal(resumeSignal);
    // What is left may be merged before it says anything.
    const bytes = await waitFor('the merge to go on', async () => {
      const status = await release.query(statusQuery);
      expect(status.paused).toBeUndefined();
      if (stateOf(status, 'merge') === 'done') return Infinity;
      return (await beatOf(release))?.bytesDone;
    });
    expect(bytes).toBeGreaterThanOrEqual(written);
    expect((await release.result()).publications).toHaveLength(1);
  });
});

describe('a merge that is retried', () => {
  it('begins again, and is done once', async () => {
    await stop();
    const control = await startTestWorkers(server, setup.environment, ['control']);
    const target = join(server.directory, 'retried');
    const release = await start(setup, { targets: [target] });
    const { mergeWorkflowId = '' } = await waitForStatus(
      release,
      'the merge',
      (status) => stateOf(status, 'merge') === 'running' && status.mergeWorkflowId !== undefined,
    );
    const child = server.client.workflow.getHandle(mergeWorkflowId);
    const first = await waitFor('the merge', () => child.describe().catch(() => undefined));
    await retry(release, 'merge');
    await waitFor('another run of the merge', async () =>
      (await child.describe()).runId === first.runId ? undefined : true,
    );
    await control.stop();
    const workers = await startTestWorkers(server, setup.environment);
    stop = () => workers.stop();
    expect((await release.result()).publications).toHaveLength(1);
  });
});

/** How far a shard is written, by its journal. */
function endOf(journal: string): number {
  const ends = journal
    .trimEnd()
    .split('\n')
    .map((line): number => JSON.parse(line).end ?? 0);
  return Math.max(...ends);
}

describe('a release that waits for a word', () => {
  it('can be paused too, and a yes to it counts once it is resumed', async () => {
    const target = join(server.directory, 'approved');
    const release = await start(setup, { approval: 'required', targets: [target] });
    await waitForStatus(release, 'waiting', isAwaited);
    await pause(release);
    const { paused, waiting } = await release.query(statusQuery);
    expect({ paused, waiting }).toMatchObject({
      paused: { by: 'ann' },
      waiting: { stage: 'approve', needs: 'approval' },
    });
    expect(await reasonOf(retry(release, 'approve'))).toContain('is paused');
    await release.signal(resumeSignal);
    const resumed = await release.query(statusQuery);
    expect(resumed.paused).toBeUndefined();
    expect(stateOf(resumed, 'approve')).toBe('waiting');
    expect(await reasonOf(retry(release, 'approve'))).toContain("waits for a person's word");

    await pause(release);
    await release.executeUpdate(approveUpdate, { args: [{ by: 'bob' }] });
    const approved = await release.query(statusQuery);
    expect(approved.waiting).toBeUndefined();
    expect(stateOf(approved, 'approve')).toBe('paused');
    expect(await readdir(server.directory)).not.toContain('approved');
    await release.signal(resumeSignal);
    expect((await release.result()).approval).toMatchObject({ by: 'bob' });
    expect(await readdir(target)).toHaveLength(1);
  });
});

describe('a stage that waits for mending', () => {
  it('is begun again by its name; other stages are not, and why is said', async () => {
    const obstacle = join(server.directory, 'obstacle');
    await writeFile(obstacle, '');
    const release = await start(setup, { targets: [join(obstacle, 'out')] });
    const { waiting } = await waitForStatus(release, 'waiting', isAwaited);
    expect(waiting?.stage).toBe('preflight');
    expect(await reasonOf(retry(release, 'merge'))).toBe(
      'The stage merge is pending: there is nothing to try again.',
    );
    expect(await reasonOf(retry(release, 'resolve'))).toContain('is done');
    const unknown = await reasonOf(retry(release, 'convert'));
    expect(unknown).toContain('has no stage convert');
    expect(unknown).toContain('resolve, fetch adapter, preflight');
    // Still in the way: it waits again.
    await retry(release, 'preflight');
    await waitForStatus(release, 'waiting again', isAwaited);
    await rm(obstacle);
    await mkdir(obstacle);
    await retry(release, 'preflight');
    await release.result();
    const preflights = (await activityRuns(release)).filter(({ type }) => type === 'preflight');
    expect(preflights).toHaveLength(3);
  });
});

describe('a release that is paused before it has begun', () => {
  it('begins nothing, and can be cancelled', async () => {
    const input = releaseInput(recipeOf(setup, { name: 'early' }));
    const startWorkflowOperation = new WithStartWorkflowOperation<typeof releaseModel>(
      'releaseModel',
      {
        workflowId: 'release-early-1.0.0',
        taskQueue: TASK_QUEUE,
        args: [input],
        workflowIdConflictPolicy: 'FAIL',
      },
    );
    const args: [{ by: string }] = [{ by: 'ann' }];
    await server.client.workflow.executeUpdateWithStart(pauseUpdate, {
      args,
      startWorkflowOperation,
    });
    const release = await startWorkflowOperation.workflowHandle();
    await waitForStatus(release, 'paused', (status) => stateOf(status, 'resolve') === 'paused');
    await release.cancel();
    await expect(release.result()).rejects.toMatchObject({ cause: { name: 'CancelledFailure' } });
    expect(stateOf(await release.query(statusQuery), 'resolve')).toBe('failed');
    const types = (await activityRuns(release)).map(({ type }) => type);
    expect(types).toEqual(['place', 'cleanUp']);
  });
});

describe('the list of releases', () => {
  it('says which run, wait and are paused without asking them', async () => {
    const obstacle = join(server.directory, 'obstacle-2');
    await writeFile(obstacle, '');
    const release = await start(setup, { targets: [join(obstacle, 'out')] });
    await waitForStatus(release, 'waiting', isAwaited);
    const memo = async () => (await release.describe()).memo?.['weldline'];
    expect(await memo()).toEqual({
      state: 'waiting',
      stages: ['preflight'],
      code: 'publish.not-writable',
    });
    await pause(release);
    expect(await memo()).toMatchObject({ state: 'paused' });
    await release.cancel();
    await expect(release.result()).rejects.toThrow();
  });
});
