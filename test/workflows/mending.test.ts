/** Releases that meet trouble on the way: a full disk, a hub that fails, a person who cancels. */
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { mergeWorkspace } from '../../activities/workspace.ts';
import { dependencies } from '../../workers/main.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { mergeStatusQuery, resumeSignal, statusQuery } from '../../workflows/messages.ts';
import { mergeDirectories, readFiles } from '../doubles/merge-directories.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../doubles/tiny-model.ts';
import { startActivityWorker, startMerging } from '../harness/activity-worker.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import {
  activityRuns,
  heartbeatsOf,
  historyText,
  startRelease,
  startTestWorkers,
  waitForStatus,
} from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';
import { startTestHub, type TestHub } from '../hub-server/test-hub.ts';

let server: TestServer;
let directory: string;
let count = 0;

beforeAll(async () => {
  server = await startTestServer();
});
afterAll(async () => {
  await server.stop();
});
beforeEach(async () => {
  directory = join(server.directory, `case-${count++}`);
  await mkdir(directory);
});

async function expectSameWeights(published: string, setup: ReleaseSetup): Promise<void> {
  const output = join(directory, 'expected');
  await mergeDirectories({ base: setup.base, adapter: setup.adapter, output });
  const expected = await readFiles(output);
  const files = await readFiles(published);
  for (const [name, bytes] of expected) {
    if (name !== 'weldline.json') expect(files.get(name)?.equals(bytes), name).toBe(true);
  }
}

describe('a full disk', () => {
  const VOLUME_BYTES = 48 * 1024 * 1024;
  let volume: string;
  let workers: RunningWorkers | undefined;
  let stopMerging: (() => Promise<void>) | undefined;

  beforeEach(async () => {
    volume = join(directory, 'volume');
    await mkdir(volume);
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${VOLUME_BYTES}`, 'weldline-test', volume]);
  });
  afterEach(async () => {
    await workers?.stop();
    await stopMerging?.();
    execFileSync('umount', [volume]);
  });

  /** Takes all the room of the volume but this much. */
  async function fill(bytesLeft: number): Promise<() => Promise<void>> {
    const filler = join(volume, 'filler');
    const { bavail, bsize } = await statfs(volume);
    await writeFile(filler, Buffer.alloc(bavail * bsize - bytesLeft));
    return () => rm(filler);
  }

  async function setUpOnVolume(): Promise<ReleaseSetup> {
    const variables = { WELDLINE_HOME: join(volume, 'home') };
    return setUpRelease(directory, { variables });
  }

  it('is found before anything is moved; the release waits and goes on', async () => {
    const setup = await setUpOnVolume();
    workers = await startTestWorkers(server, setup.environment);
    const makeRoom = await fill(8 * 1024 * 1024);
    const handle = await startRelease(server.client, releaseInput(recipeOf(setup)));
    const { waiting } = await waitForStatus(handle, 'waiting', (s) => s.waiting !== undefined);
    expect(waiting).toMatchObject({ stage: 'preflight', code: 'disk.full' });
    expect(waiting?.message).toContain(volume);
    expect(waiting?.message).toMatch(/MB free and .* MB are needed/);
    await makeRoom();
    await handle.signal(resumeSignal);
    const { publications } = await handle.result();
    await expectSameWeights(publications[0]?.location ?? '', setup);
  });

  it('is met in the merge; what is merged stays, and the release goes on with it', async () => {
    const setup = await setUpOnVolume();
    // Nobody merges until the disk is full, so that it is always full in the middle.
    workers = await startTestWorkers(server, setup.environment, ['control']);
    const input = releaseInput(recipeOf(setup, { name: 'filled' }), { parallelShards: 1 });
    const handle = await startRelease(server.client, input);
    const { plan, mergeWorkflowId } = await waitForStatus(handle, 'the merge', ({ stages }) =>
      stages.some(({ stage, state }) => stage === 'merge' && state === 'running'),
    );
    const makeRoom = await fill(2 * 1024 * 1024);
    stopMerging = await startMerging(server, setup.environment);
    const { waiting } = await waitForStatus(handle, 'waiting', (s) => s.waiting !== undefined);
    expect(waiting).toMatchObject({ stage: 'merge', code: 'disk.full' });
    const failed = server.client.workflow.getHandle(mergeWorkflowId ?? '');
    expect(await activityRuns(failed)).toEqual([
      { type: 'mergeShard', attempts: 1, failures: ['disk.full'] },
    ]);
    await makeRoom();
    await handle.signal(resumeSignal);
    const { publications, planDigest } = await handle.result();
    expect(planDigest).toBe(plan?.digest);
    await expectSameWeights(publications[0]?.location ?? '', setup);
  });
});

describe('a hub', () => {
  const TOKEN = 'hf_ThisMustNotBeFoundAnywhere';
  let hub: TestHub;
  let stop: (() => Promise<void>)[];

  beforeEach(async () => {
    stop = [];
    const base = Object.fromEntries(baseFiles(tinyBase({ shards: 2 })));
    const adapter = Object.fromEntries(adapterFiles(tinyAdapter()));
    const buffers = (files: Record<string, Uint8Array>) =>
      Object.fromEntries(Object.entries(files).map(([name, data]) => [name, Buffer.from(data)]));
    hub = await startTestHub(
      { 'org/tiny': { main: buffers(base) }, 'org/tone': { main: buffers(adapter) } },
      { privateRepositories: { 'org/tone': [TOKEN] } },
    );
  });
  afterEach(async () => {
    for (const end of stop.splice(0)) await end();
    await hub.close();
  });

  async function startHubWorker(setup: ReleaseSetup, token?: string): Promise<() => Promise<void>> {
    const usual = dependencies(setup.environment);
    const access = {
      ...usual.access,
      hub: hub.connection(token),
      cacheDirectory: hub.cacheDirectory,
    };
    // It does everything.
    const place = { queues: {} };
    const end = await startActivityWorker(server, { ...usual, access, place });
    stop.push(end);
    return end;
  }

  function hubRelease(setup: ReleaseSetup, name: string) {
    const recipe = recipeOf(setup, { name, base: 'hf://org/tiny', adapter: 'hf://org/tone' });
    return startRelease(server.client, releaseInput(recipe));
  }

  it('that fails for a while is tried again, whatever the stage', async () => {
    const setup = await setUpRelease(directory);
    await startHubWorker(setup, TOKEN);
    // More failures than one attempt bears, so that the activity itself must be tried again.
    hub.inject({ kind: 'status', status: 503, target: 'api', times: 4 });
    // Beyond the header, where only the digest of the whole file can tell.
    const corrupt = { kind: 'corrupt', target: 'storage', path: /model-00002/ } as const;
    hub.inject({ ...corrupt, afterBytes: 60_000, times: 2 });
    const handle = await hubRelease(setup, 'flaky');
    const { publications } = await handle.result();
    await expectSameWeights(publications[0]?.location ?? '', setup);
    const runs = await activityRuns(handle);
    expect(runs.find(({ type }) => type === 'resolveInputs')).toEqual({
      type: 'resolveInputs',
      attempts: 2,
      failures: ['hub.unavailable'],
    });
    const facts = JSON.parse(
      await readFile(join(publications[0]?.location ?? '', 'release.json'), 'utf8'),
    );
    expect(facts.inputs).toMatchObject([
      { id: 'base', model: 'hf://org/tiny', commit: hub.commitOf('org/tiny', 'main') },
      { id: 'tone', model: 'hf://org/tone', commit: hub.commitOf('org/tone', 'main') },
    ]);
  });

  it('that wants a token makes the release wait for one, and no record ever holds it', async () => {
    const setup = await setUpRelease(directory);
    const end = await startHubWorker(setup);
    const handle = await hubRelease(setup, 'private');
    const { waiting } = await waitForStatus(handle, 'waiting', (s) => s.waiting !== undefined);
    expect(waiting).toMatchObject({ stage: 'resolve', code: 'hub.unauthorized' });
    await end();
    stop.pop();
    await startHubWorker(setup, TOKEN);
    await handle.signal(resumeSignal);
    const { publications } = await handle.result();
    expect(hub.requests.some(({ authorization }) => authorization?.includes(TOKEN))).toBe(true);

    const { mergeWorkflowId = '' } = await handle.query(statusQuery);
    const merge = server.client.workflow.getHandle(mergeWorkflowId);
    const texts = [await historyText(handle), await historyText(merge)];
    expect(texts[0]).toContain('hf://org/tone');
    for (const root of [publications[0]?.location ?? '', setup.home]) {
      for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile()) continue;
        texts.push(await readFile(join(entry.parentPath, entry.name), 'latin1'));
      }
    }
    expect(texts.length).toBeGreaterThan(8);
    for (const text of texts) expect(text).not.toContain(TOKEN);
  });
});

describe('cancelling in the middle of the merge', () => {
  it('is heard, keeps what is merged, and the next release goes on with it', async () => {
    const setup = await setUpRelease(directory, {
      ...heavyModel({ layers: 8, shards: 1, extent: 2048, rank: 1536 }),
      variables: { WELDLINE_THREADS: '1' },
    });
    const workers = await startTestWorkers(server, setup.environment, ['control']);
    const stopMerging = await startMerging(server, setup.environment);
    try {
      const handle = await startRelease(server.client, releaseInput(recipeOf(setup)));
      const beat = await waitFor('a heartbeat of the merge', async () => {
        const { mergeWorkflowId } = await handle.query(statusQuery);
        if (mergeWorkflowId === undefined) return undefined;
        const child = server.client.workflow.getHandle(mergeWorkflowId);
        const beats = await heartbeatsOf(child).catch(() => []);
        return beats.find(({ item }) => item !== '');
      });
      expect(beat).toMatchObject({ stage: 'merge', item: expect.stringContaining('self_attn') });
      const { mergeWorkflowId = '', plan } = await handle.query(statusQuery);
      const child = server.client.workflow.getHandle(mergeWorkflowId);
      expect(await child.query(mergeStatusQuery)).toMatchObject({ shardsTotal: 1, shardsDone: 0 });
      await handle.cancel();
      await expect(handle.result()).rejects.toMatchObject({ cause: { name: 'CancelledFailure' } });
      expect((await child.describe()).status.name).toBe('CANCELLED');

      const { staging } = mergeWorkspace(setup.home, plan?.digest ?? '');
      expect(await readdir(staging.files)).toEqual(['model.safetensors.partial']);
      const journal = await readFile(join(staging.journals, 'model.safetensors.jsonl'), 'utf8');
      expect(journal.trimEnd().split('\n').length).toBeGreaterThan(1);
      const again = await startRelease(server.client, releaseInput(recipeOf(setup)));
      const { publications, planDigest } = await again.result();
      expect(planDigest).toBe(plan?.digest);
      await expectSameWeights(publications[0]?.location ?? '', setup);
    } finally {
      await stopMerging();
      await workers.stop();
    }
  });
});

describe('a release that was terminated in the middle of the merge', () => {
  it('is begun again at once, though its merge ends only when its worker is taken for dead', async () => {
    const setup = await setUpRelease(directory);
    const workers = await startTestWorkers(server, setup.environment, ['control']);
    let merges = 0;
    const stopMerging = await startMerging(server, setup.environment, {
      holds: () => merges++ === 0,
    });
    try {
      const input = releaseInput(recipeOf(setup, { name: 'terminated' }));
      const lost = await startRelease(server.client, input);
      await waitFor('the merge', async () => (merges > 0 ? true : undefined));
      await lost.terminate('lost');
      const { publications } = await (await startRelease(server.client, input)).result();
      await expectSameWeights(publications[0]?.location ?? '', setup);
    } finally {
      await stopMerging();
      await workers.stop();
    }
  });
});
