/** A month of nights whose clock jumps: what waits for hours here waits for no time at all. */
import { mkdir, mkdtemp, readdir, rename, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import type { Workflow } from '@temporalio/common';
import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { TASK_QUEUE } from '../../workers/task-queues.ts';
import { approveUpdate, statusQuery } from '../../workflows/messages.ts';
import { NIGHT_MEMO, type NightlyInput, type NightMemo } from '../../workflows/nightly-messages.ts';
import type { nightlyRelease } from '../../workflows/nightly-release.ts';
import type { releaseModel } from '../../workflows/release-model.ts';
import { writeFiles } from '../doubles/merge-directories.ts';
import { adapterFiles, tinyAdapter } from '../doubles/tiny-model.ts';
import {
  type RecipeChanges,
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import { activityRuns } from '../harness/running-release.ts';
import { startSkippingWorkers, startTimeSkipping } from '../harness/time-skipping.ts';
import { waitFor } from '../harness/wait-for.ts';

vi.setConfig({ testTimeout: 240_000 });

const HOUR_MS = 3_600_000;

let directory: string;
let environment: TestWorkflowEnvironment;
let setup: ReleaseSetup;
let stopWorkers: () => Promise<void>;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weldline-nights-'));
  setup = await setUpRelease(directory);
  environment = await startTimeSkipping();
  stopWorkers = await startSkippingWorkers(environment, setup);
});
afterAll(async () => {
  await stopWorkers();
  await environment.teardown();
  await rm(directory, { recursive: true, force: true });
});

function nightly(changes: RecipeChanges, more: Partial<NightlyInput> = {}): NightlyInput {
  const input = releaseInput(recipeOf(setup, { version: '1.{date}', ...changes }));
  return { ...input, timeZone: 'UTC', cron: [], nightTimeoutMs: 20 * HOUR_MS, ...more };
}

function startNight(workflowId: string, input: NightlyInput) {
  return environment.client.workflow.start<typeof nightlyRelease>('nightlyRelease', {
    workflowId,
    taskQueue: TASK_QUEUE,
    args: [input],
    workflowExecutionTimeout: '21h',
  });
}

async function failureOf(night: Promise<unknown>): Promise<{ type: string; message: string }> {
  const error: unknown = await night.catch((reason: unknown) => reason);
  if (!(error instanceof WorkflowFailedError)) throw new Error('the night did not fail');
  return error.cause as unknown as { type: string; message: string };
}

/**
 * The clock jumps while a result is awaited, also over the moment in which a busy worker has not taken up
 * its work yet. So it is awaited only of what has ended, or of what waits for the clock.
 */
async function resultOf<T extends Workflow>(
  run: WorkflowHandle<T>,
): Promise<Awaited<ReturnType<T>>> {
  await waitFor(`the end of ${run.workflowId}`, async () =>
    (await run.describe()).status.name === 'RUNNING' ? undefined : true,
  );
  return (await run.result()) as Awaited<ReturnType<T>>;
}

/** The release that a night has begun. */
function releaseOf(night: WorkflowHandle<typeof nightlyRelease>): Promise<string> {
  return waitFor('the release to begin', async () => {
    const { memo = {} } = await night.describe();
    return ((memo[NIGHT_MEMO] ?? {}) as Partial<NightMemo>).release;
  });
}

/** Waits until a release asks for a person's word. */
function untilAsked(id: string): Promise<WorkflowHandle<typeof releaseModel>> {
  return waitFor(`${id} to ask`, async () => {
    const release = environment.client.workflow.getHandle<typeof releaseModel>(id);
    const status = await release.query(statusQuery).catch(() => undefined);
    return status?.waiting === undefined ? undefined : release;
  });
}

describe('a month of nights', () => {
  /** What happens before a night. */
  const events: Readonly<Record<number, () => Promise<void>>> = {
    10: () => writeFiles(setup.adapter, adapterFiles(tinyAdapter({ seed: 7 }))),
    15: () => rename(setup.adapter, `${setup.adapter}-away`),
    17: () => rename(`${setup.adapter}-away`, setup.adapter),
  };

  it('releases what is new, says "unchanged" of the rest, and fails where an input is gone', async () => {
    const outcomes: string[] = [];
    const versions = new Set<string>();
    const begunAtMs = await environment.currentTimeMs();
    for (let number = 0; number < 30; number++) {
      await events[number]?.();
      const night = await startNight(`night-${number}`, nightly({ name: 'month' }));
      const result = await resultOf(night).catch(() => undefined);
      if (result !== undefined) versions.add(result.version);
      outcomes.push(result?.outcome ?? 'failed');
      await environment.sleep('24h');
    }
    const expected = outcomes.map((_, number) => {
      if (number === 0 || number === 10) return 'released';
      return number === 15 || number === 16 ? 'failed' : 'unchanged';
    });
    expect(outcomes).toEqual(expected);
    expect(versions.size).toBe(28);
    expect((await environment.currentTimeMs()) - begunAtMs).toBeGreaterThan(29 * 24 * HOUR_MS);
    const releases = (await readdir(setup.target)).filter((name) => name.startsWith('merged-'));
    expect(releases).toHaveLength(2);
  });
});

describe('a release by hand', () => {
  it('is what the next night finds unchanged', async () => {
    const { recipe, digest } = recipeOf(setup, { name: 'by-hand', version: '1.0.0' });
    const { client } = environment;
    const release = await client.workflow.start<typeof releaseModel>('releaseModel', {
      workflowId: 'release-by-hand-1.0.0',
      taskQueue: TASK_QUEUE,
      args: [releaseInput({ recipe, digest, path: '' })],
    });
    await resultOf(release);
    const night = await startNight('after-hand', nightly({ name: 'by-hand' }));
    expect(await resultOf(night)).toMatchObject({
      outcome: 'unchanged',
      last: { version: '1.0.0', inputs: { base: expect.stringMatching(/^[0-9a-f]{64}$/) } },
    });
  });
});

describe('a night that waits', () => {
  it('is given up before the server ends it, and says what a person would have had to mend', async () => {
    const occupied = join(directory, 'occupied');
    await writeFile(occupied, 'a file where a directory should be');
    const targets = [join(occupied, 'releases')];
    const night = await startNight('waiting', nightly({ name: 'waiting', targets }));
    await untilAsked(await releaseOf(night));
    const { type, message } = await failureOf(night.result());
    expect(type).toBe('release.timed-out');
    expect(message).toMatch(/given up after 20 h: it waited \(preflight, publish\.not-writable\)/);
    expect(message).toContain(occupied);
    const { memo } = await night.describe();
    const told = memo?.[NIGHT_MEMO] as NightMemo;
    expect(told).toMatchObject({ state: 'failed', detail: message });
    const release = environment.client.workflow.getHandle(`release-waiting-${told.version}`);
    expect((await release.describe()).status.name).toBe('CANCELLED');
  });

  it('waits for approval where its recipe asks for it, and is then released', async () => {
    const night = await startNight('asked', nightly({ name: 'asked', approval: 'required' }));
    const release = await untilAsked(await releaseOf(night));
    await release.executeUpdate(approveUpdate, { args: [{ by: 'a person' }] });
    expect(await resultOf(night)).toMatchObject({ outcome: 'released' });
  });

  it('says so where its version is being released by hand', async () => {
    const input = nightly({ name: 'taken', approval: 'required', version: '2.0.0' });
    await environment.client.workflow.start<typeof releaseModel>('releaseModel', {
      workflowId: 'release-taken-2.0.0',
      taskQueue: TASK_QUEUE,
      args: [input],
    });
    const release = await untilAsked('release-taken-2.0.0');
    const { type, message } = await failureOf(resultOf(await startNight('taken', input)));
    expect(type).toBe('release.already-running');
    expect(message).toContain('weldline status release-taken-2.0.0');
    expect((await release.query(statusQuery)).waiting).toMatchObject({ needs: 'approval' });
  });
});

describe('a release that another merge leaves no space', () => {
  it('begins its stage again until there is space, and asks nobody', async () => {
    const { bavail, bsize } = await statfs(setup.home);
    const lease = join(setup.home, 'leases', 'other.json');
    await mkdir(join(setup.home, 'leases'), { recursive: true });
    await writeFile(
      lease,
      JSON.stringify({ since: 1, bytes: 10 * bavail * bsize, files: 'other' }),
    );
    const release = await environment.client.workflow.start<typeof releaseModel>('releaseModel', {
      workflowId: 'release-crowded-1.0.0',
      taskQueue: TASK_QUEUE,
      args: [releaseInput(recipeOf(setup, { name: 'crowded', version: '1.0.0' }))],
    });
    const preflights = async () =>
      (await activityRuns(release)).filter(({ type }) => type === 'preflight');
    await waitFor('the stage to be tried', async () => {
      const { pendingActivities } = (await release.describe()).raw;
      return pendingActivities?.some(({ lastFailure }) => lastFailure != null) || undefined;
    });
    // The clock jumps for whoever waits for a result.
    const result = release.result();
    await waitFor(
      'the stage to begin again',
      async () => (await preflights()).length > 1 || undefined,
    );
    expect((await release.query(statusQuery)).waiting).toBeUndefined();
    await rm(lease);
    expect((await result).publications).toHaveLength(1);
    expect((await preflights())[0]?.failures).toEqual(['disk.reserved']);
  });
});
