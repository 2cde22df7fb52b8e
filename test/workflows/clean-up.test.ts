/** What a release that is cancelled leaves, on this machine and at its targets. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mergeWorkspace } from '../../activities/workspace.ts';
import { pendingWork } from '../../cli/pending-work.ts';
import { parseRecipe } from '../../config/recipe.ts';
import { retryUpdate, statusQuery } from '../../workflows/messages.ts';
import { type FaultyProxy, startFaultyProxy } from '../harness/faulty-proxy.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import { MOTO_VARIABLES, type MotoServer, startMoto } from '../harness/moto-server.ts';
import {
  type ReleaseSetup,
  recipeText,
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
import { S3Bucket } from '../harness/s3-bucket.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';

let server: TestServer;
let moto: MotoServer;
let s3: FaultyProxy;
let bucket: S3Bucket;
let setup: ReleaseSetup;
let stop: () => Promise<void>;

beforeAll(async () => {
  Object.assign(process.env, MOTO_VARIABLES);
  [server, moto] = await Promise.all([startTestServer(), startMoto()]);
  s3 = await startFaultyProxy(moto.url);
  bucket = await S3Bucket.create(moto.url, 'models');
  setup = await setUpRelease(join(server.directory, 'release'), {
    // Of more than one part.
    ...heavyModel({ layers: 1, shards: 1, extent: 2048, rank: 8 }),
    variables: { ...MOTO_VARIABLES, AWS_ENDPOINT_URL_S3: s3.origin },
  });
  const workers = await startTestWorkers(server, setup.environment);
  stop = () => workers.stop();
});
afterAll(async () => {
  await stop();
  bucket.close();
  await s3.close();
  await moto.stop();
  await server.stop();
  for (const name of Object.keys(MOTO_VARIABLES)) delete process.env[name];
});

/** A release to a bucket, below a prefix of its own. */
function startPublishing(name: string, run = name): Promise<TestRelease> {
  const text = recipeText(setup, { name, adapterVersion: '3' }).replace(
    /publish: .*\n/,
    `publish: ${JSON.stringify([{ s3: { bucket: 'models', prefix: name } }])}\n`,
  );
  const recipe = parseRecipe(text, join(setup.directory, 'recipe.yaml'));
  return startRelease(server.client, releaseInput(recipe), `release-${run}`);
}

const NAME = 'merged-tiny-1.0.0-adapter-tone-3';

const cancelled = async (release: TestRelease) => {
  await release.cancel();
  await expect(release.result()).rejects.toMatchObject({ cause: { name: 'CancelledFailure' } });
  return (await release.query(statusQuery)).cleanedUp;
};

describe('a release that is cancelled while it is sent to a bucket', () => {
  it('leaves nothing there, keeps the merge, and can be made again', async () => {
    // The second part never arrives.
    s3.fail({ kind: 'stall', method: /PUT/, path: /partNumber=2/, times: Infinity });
    const release = await startPublishing('stalled');
    await waitFor('an upload', async () =>
      s3.requests.some(({ fault }) => fault === 'stall') ? true : undefined,
    );
    expect(await bucket.keysAndUploads('stalled/')).toContain(`stalled/${NAME}/model.safetensors`);
    const { removed, left } = (await cancelled(release)) ?? {};
    expect(left).toBeUndefined();
    expect(removed).toContain(
      `s3://models/stalled/${NAME}/model.safetensors: an unfinished upload`,
    );
    expect(await bucket.keysAndUploads('stalled/')).toEqual([]);
    const { plan } = await release.query(statusQuery);
    const { sealed } = mergeWorkspace(setup.home, plan?.digest ?? '');
    expect(await readdir(sealed)).toContain('model.safetensors');

    s3.clear();
    const again = await startPublishing('stalled', 'again');
    const { publications } = await again.result();
    expect(publications).toMatchObject([{ location: `s3://models/stalled/${NAME}` }]);
    const files = await bucket.keys('stalled/');
    expect(files).toContain(`stalled/${NAME}/release.json`);
    // What is published is nobody's leftover.
    const third = await startPublishing('stalled', 'third');
    await third.cancel();
    await third.result().catch(() => undefined);
    expect(await bucket.keys('stalled/')).toEqual(files);
  });
});

describe('a target that does not answer', () => {
  it('is named with its error while it is tried again, and tried at once if a person says so', async () => {
    const artefact = /\/models\/busy\/merged-/;
    s3.fail({ kind: 'status', status: 503, method: /PUT|POST/, path: artefact, times: Infinity });
    const release = await startPublishing('busy');
    const look = async () => {
      const [work] = await pendingWork(server.client, release);
      if (work?.state !== 'retrying') return undefined;
      // So late that only the person can be the reason for one before it.
      return Date.parse(work.nextAttemptAt ?? '') - Date.now() > 5_000 ? work : undefined;
    };
    const work = await waitFor('another attempt', look);
    expect(work).toMatchObject({
      activity: 'publish',
      subject: 'merged to s3://models/busy',
      attemptsMax: 50,
      lastError: { code: 'publish.unavailable', message: expect.stringContaining('s3://models') },
    });
    expect(work.attempt).toBeGreaterThan(1);
    s3.clear();
    await release.executeUpdate(retryUpdate, { args: ['publish'] });
    await release.result();
    const published = (await activityRuns(release)).filter(({ type }) => type === 'publish');
    expect(published).toHaveLength(2);
    expect(published[1]).toEqual({ type: 'publish', attempts: 1, failures: [] });
  });
});

describe('temporary files', () => {
  it('of processes that were killed are removed; of those that run they are not', async () => {
    s3.fail({ kind: 'status', status: 503, method: /PUT|POST/, path: /left\/merged-/, times: 1e6 });
    const release = await startPublishing('left');
    const { plan } = await waitForStatus(release, 'publishing', ({ stages }) =>
      stages.some(({ stage, state }) => stage === 'publish' && state === 'running'),
    );
    const { root } = mergeWorkspace(setup.home, plan?.digest ?? '');
    const old = join(root, '.plan.json.1-mfk3x-0.partial');
    const young = join(root, '.plan.json.1-mfk3x-1.partial');
    for (const path of [old, young]) await writeFile(path, '');
    await utimes(old, 1, 1);
    const conversions = join(setup.home, 'conversions');
    const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
    // Beyond what the kernel gives.
    const killed = join(conversions, `gguf.${host}-99999999-0.partial`);
    const running = join(conversions, `gguf.${host}-1-0.partial`);
    for (const path of [killed, running]) await mkdir(path, { recursive: true });
    const { removed } = (await cancelled(release)) ?? {};
    expect(removed).toEqual(expect.arrayContaining([old, killed]));
    expect(await readdir(conversions)).toEqual([`gguf.${host}-1-0.partial`]);
    expect(await readdir(root)).toContain('.plan.json.1-mfk3x-1.partial');
  });
});
