/** Operators' commands against a Temporal server of their own, whose workers run elsewhere. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { pendingWork } from '../../cli/pending-work.ts';
import { SHARED_QUEUES } from '../../workers/task-queues.ts';
import type { ReleaseStatus } from '../../workflows/messages.ts';
import { weldlineHere } from '../harness/command-here.ts';
import { mergeOf } from '../harness/merge-work.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
  writeRecipe,
} from '../harness/release-setup.ts';
import { startRelease, startTestWorkers, waitForStatus } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';

let server: TestServer;
let setup: ReleaseSetup;
let stop: () => Promise<void>;

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpRelease(join(server.directory, 'release'));
  const workers = await startTestWorkers(server, setup.environment, ['control']);
  stop = () => workers.stop();
  vi.stubEnv('WELDLINE_HOME', setup.home);
  vi.stubEnv('TEMPORAL_ADDRESS', server.address);
});
afterAll(async () => {
  await stop();
  await server.stop();
  vi.unstubAllEnvs();
});

const json = async (...args: string[]) =>
  JSON.parse((await weldlineHere(...args, '--json')).stdout);

/** Lists follow a little behind. */
const LISTED = { timeout: 60_000, interval: 200 };

const untilListed = (releases: readonly object[]) =>
  vi.waitFor(async () => expect(await json('list')).toMatchObject(releases), LISTED);

const isAwaited = ({ waiting }: ReleaseStatus) => waiting !== undefined;

describe('a release whose work nobody takes on', () => {
  it('says which worker lacks, is paused and resumed, and is cancelled', async () => {
    const release = await startRelease(server.client, releaseInput(recipeOf(setup)));
    const id = 'release-tone-model-1.0.0';
    await waitForStatus(release, 'merging', ({ mergeWorkflowId }) => mergeWorkflowId !== undefined);
    await waitFor('both shards to be asked for', async () => {
      const work = await pendingWork(server.client, mergeOf(server, id)).catch(() => []);
      return work.length === 2 ? work : undefined;
    });
    const status = await weldlineHere('status');
    expect(status.stdout).toMatch(/^release-tone-model-1\.0\.0 {2}running$/m);
    expect(status.stdout).toMatch(/^ {2}mergeShard \(shard 1 of 2\) {2}waits for a worker on /m);
    expect(status.stdout).toContain(
      `no worker serves the queue ${SHARED_QUEUES.merge}, or all are busy: start one with ` +
        'weldline worker --role merge',
    );
    const { work } = await json('status', id);
    expect(work).toMatchObject([
      { activity: 'mergeShard', state: 'queued', attempt: 1, queueIsServed: false },
      { activity: 'mergeShard', subject: 'shard 2 of 2', queue: SHARED_QUEUES.merge },
    ]);

    const merge = await weldlineHere('cancel', `${id}/merge`);
    expect(merge.stderr).toContain(`There is no release ${id}/merge. There are ${id}`);
    for (const none of ['', 'x'.repeat(1001)]) {
      expect((await json('status', none)).error.code).toBe('cli.usage');
    }

    const paused = await weldlineHere('pause', 'tone-model-1.0.0', '--by', 'ann');
    expect(paused.stdout).toBe(`Paused ${id}. To go on: weldline resume ${id}\n`);
    const again = await weldlineHere('pause', '--json');
    expect(again.status).toBe(1);
    expect(JSON.parse(again.stdout).error).toEqual({
      code: 'release.refused',
      message: 'The release is paused already.',
    });
    const watched = await weldlineHere('watch');
    expect(watched.status).toBe(3);
    expect(watched.stderr).toMatch(/^The release is paused by ann since 20.* UTC\.$/m);
    await untilListed([{ id, state: 'paused', stages: ['merge'] }]);
    expect((await weldlineHere('status')).stdout).toMatch(/^paused by ann since /m);

    const resumed = weldlineHere('resume');
    await waitForStatus(release, 'running again', ({ paused }) => paused === undefined);
    await release.cancel();
    expect(await resumed).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('cancelled'),
    });
    await untilListed([{ id, state: 'cancelled', runs: 1 }]);
    for (const command of ['pause', 'cancel']) {
      const { error } = await json(command, id);
      expect(error.message).toContain(`${id} is not running (cancelled)`);
    }
  });

  it('is cancelled, and the list has a line for both its runs, or for each', async () => {
    const id = 'release-tone-model-1.0.0';
    await startRelease(server.client, releaseInput(recipeOf(setup)));
    const cancelled = await weldlineHere('cancel', id);
    expect(cancelled.stdout).toBe(`Cancelled ${id}\n`);
    await untilListed([{ id, state: 'cancelled', runs: 2 }]);
    expect(await json('list', '--all')).toHaveLength(2);
  });
});

describe('retry', () => {
  it('names the stages to whoever asks for another, and passes on why it is refused', async () => {
    const obstacle = join(server.directory, 'obstacle');
    await writeFile(obstacle, '');
    const changes = { version: '2.0.0', targets: [join(obstacle, 'out')] };
    const release = await startRelease(server.client, releaseInput(recipeOf(setup, changes)));
    await waitForStatus(release, 'waiting', isAwaited);
    const unknown = await weldlineHere('retry', 'upload');
    expect(unknown.status).toBe(2);
    expect(unknown.stderr).toContain('resolve, fetch-adapter, preflight, fetch-base, plan');
    const { error } = await json('retry', 'fetch-base');
    expect(error).toEqual({
      code: 'release.refused',
      message: 'The stage fetch base is pending: there is nothing to try again.',
    });
    const retried = await weldlineHere('retry', 'preflight', 'tone-model-2.0.0');
    expect(retried.status).toBe(3);
    expect(retried.stderr).toContain('The release waits (preflight)');
    await vi.waitFor(async () => {
      const { stdout } = await weldlineHere('list', '--limit', '1');
      expect(stdout).toMatch(/^release-tone-model-2\.0\.0 +waiting +preflight \[publish\.not-wri/m);
    }, LISTED);
    await stop();
    const unanswered = await weldlineHere('status');
    stop = async () => {};
    expect(unanswered.status).toBe(1);
    expect(unanswered.stdout).toMatch(/^release-tone-model-2\.0\.0 {2}waiting$/m);
    expect(unanswered.stderr).toContain('No worker answers for this release');
    const recipe = await writeRecipe(setup, { version: '3.0.0' });
    const begun = await weldlineHere('release', recipe, '--detach');
    expect(begun).toMatchObject({ status: 0, stdout: 'Release release-tone-model-3.0.0\n' });
    expect(begun.stderr).toContain('release-tone-model-3.0.0 is on the server, but no worker');
  });
});
