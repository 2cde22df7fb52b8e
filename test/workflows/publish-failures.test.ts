/** What goes wrong between a merge and its targets, and how a person gets a release over it. */
import { execFileSync } from 'node:child_process';
import { access, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { verifyModelSignature } from '../../attest/model-signature.ts';
import { sha256Of } from '../../engine/canonical-json.ts';
import { promote, rollBack } from '../../publishers/alias-moves.ts';
import { PATIENCE } from '../../publishers/publisher.ts';
import { createS3Publisher } from '../../publishers/s3/s3-publisher.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import {
  approveUpdate,
  type ReleaseResult,
  resumeSignal,
  type Waiting,
} from '../../workflows/messages.ts';
import { writeFiles } from '../doubles/merge-directories.ts';
import { adapterFiles, tinyAdapter } from '../doubles/tiny-model.ts';
import {
  inBucket,
  inDirectory,
  inRegistry,
  type Places,
  type PublishTargets,
  placesOf,
  publishingRecipe,
  startPublishTargets,
  writeSigningKey,
} from '../harness/publish-targets.ts';
import { REGISTRY_PASSWORD, writeDockerConfig } from '../harness/registry-server.ts';
import {
  type RecipeChanges,
  type ReleaseSetup,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import {
  activityRuns,
  failureOf,
  historyText,
  startRelease,
  startTestWorkers,
  type TestRelease,
  waitForStatus,
} from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';

/** All releases here have the same inputs: they are merged once. */
const ARTEFACT = 'merged-tiny-1.0.0-adapter-tone-3';
const NEVER = new AbortController().signal;
const DOWN = { kind: 'drop-request', times: Number.POSITIVE_INFINITY } as const;

let server: TestServer;
let targets: PublishTargets;
let setup: ReleaseSetup;
let workers: RunningWorkers;

beforeAll(async () => {
  server = await startTestServer();
  targets = await startPublishTargets(server.directory);
  const { variables } = targets;
  setup = await setUpRelease(join(server.directory, 'release'), { variables });
  workers = await startTestWorkers(server, setup.environment);
});
afterAll(async () => {
  await workers?.stop();
  await targets?.close();
  await server?.stop();
});
afterEach(() => {
  targets.s3.clear();
  targets.oci.clear();
});

interface Started {
  readonly release: TestRelease;
  readonly places: Places;
}

async function start(
  name: string,
  changes: RecipeChanges & { readonly directory?: string; readonly places?: Places } = {},
): Promise<Started> {
  const { directory, places: given = placesOf(targets, setup, name), ...others } = changes;
  const places = { ...given, ...(directory !== undefined && { directory }) };
  const recipe = publishingRecipe(setup, places, { name, approval: 'required', ...others });
  return { release: await startRelease(server.client, releaseInput(recipe)), places };
}

async function waitingOf(release: TestRelease, stage: string): Promise<Waiting> {
  const status = await waitForStatus(
    release,
    `${stage} to wait`,
    ({ waiting }) => waiting?.stage === stage,
  );
  return status.waiting!;
}

/** A release that is merged and verified, and waits for approval before it is published. */
async function merged(...args: Parameters<typeof start>): Promise<Started> {
  const started = await start(...args);
  await waitingOf(started.release, 'approve');
  return started;
}

const approve = (release: TestRelease) =>
  release.executeUpdate(approveUpdate, { args: [{ by: 'ada' }] });

/** The code of the last failure of an activity that is tried again. */
function lastFailure(release: TestRelease): Promise<string> {
  return waitFor('a failure that is tried again', async () => {
    const { raw } = await release.describe();
    const failures = (raw.pendingActivities ?? []).map(({ lastFailure: failure }) => failure);
    return failures.find((each) => each != null)?.applicationFailureInfo?.type ?? undefined;
  });
}

/** All three targets have the same files, the alias points at them, and nothing is left over. */
async function expectPublished(places: Places, result: ReleaseResult): Promise<void> {
  expect(result.publications.map(({ target, existed }) => [target, existed])).toEqual([
    ['directory', false],
    ['s3', false],
    ['oci', false],
  ]);
  const local = await inDirectory(places, ARTEFACT);
  expect(local?.get('model.sig')).toBeDefined();
  expect(await inBucket(targets, places, ARTEFACT)).toEqual(local);
  expect(await inRegistry(targets, places, ARTEFACT)).toEqual(local);
  await expectAliases(places, true);
  const names = await readdir(places.directory);
  expect(names.filter((name) => /\.(partial|left)$/.test(name))).toEqual([]);
}

async function expectAliases(places: Places, areThere: boolean): Promise<void> {
  const [directory, bucket, registry] = [
    await inDirectory(places, 'latest'),
    await targets.bucket.keys(`${places.prefix}aliases/`),
    await inRegistry(targets, places, 'latest'),
  ];
  expect([(directory?.size ?? 0) > 0, bucket.length > 0, registry !== undefined]).toEqual(
    Array.from({ length: 3 }, () => areThere),
  );
}

it('waits in preflight for its key, and for a registry that does not answer', async () => {
  const away = `${targets.keyFile}.away`;
  await rename(targets.keyFile, away);
  const { release, places } = await start('unsigned');
  const waiting = await waitingOf(release, 'preflight');
  expect(waiting).toMatchObject({ code: 'attest.key-invalid' });
  expect(waiting.message).toContain(targets.keyFile);
  await rename(away, targets.keyFile);
  targets.oci.fail(DOWN);
  await release.signal(resumeSignal);
  expect(await lastFailure(release)).toBe('publish.unavailable');
  targets.oci.clear();
  await waitingOf(release, 'approve');
  await approve(release);
  await expectPublished(places, await release.result());
});

it('waits when a registry takes its credentials no more, and sends the rest when resumed', async () => {
  const { release, places } = await merged('locked');
  const registry = places.repository.slice(0, places.repository.indexOf('/'));
  const auth = Buffer.from('tester:canary-wrong-77').toString('base64');
  const config = JSON.stringify({ auths: { [registry]: { auth } } });
  await writeFile(join(targets.dockerConfig, 'config.json'), config);
  await approve(release);
  const waiting = await waitingOf(release, 'publish');
  expect(waiting).toMatchObject({ code: 'publish.unauthorized' });
  expect(waiting.message).toContain(registry);
  expect(await inBucket(targets, places, ARTEFACT)).toEqual(await inDirectory(places, ARTEFACT));
  expect(await inRegistry(targets, places, ARTEFACT)).toBe(undefined);
  await expectAliases(places, false);
  const before = targets.s3.uploadedBytes(/^PUT/);
  await writeDockerConfig(targets.dockerConfig, [registry]);
  await release.signal(resumeSignal);
  await expectPublished(places, await release.result());
  // An alias, and no file again.
  expect(targets.s3.uploadedBytes(/^PUT/) - before).toBeLessThan(1000);
  const history = await historyText(release);
  for (const secret of ['canary-wrong-77', REGISTRY_PASSWORD, auth]) {
    expect(history).not.toContain(secret);
  }
});

it('goes on by itself when a bucket that was away during publish is back', async () => {
  const { release, places } = await merged('away');
  targets.s3.fail({ kind: 'status', status: 503, times: Number.POSITIVE_INFINITY });
  await approve(release);
  expect(await lastFailure(release)).toBe('publish.unavailable');
  await waitFor('the other targets', () => inRegistry(targets, places, ARTEFACT));
  expect(await inBucket(targets, places, ARTEFACT)).toEqual(new Map());
  await expectAliases(places, false);
  targets.s3.clear();
  await expectPublished(places, await release.result());
  const runs = (await activityRuns(release)).filter(({ type }) => type === 'publish');
  expect(runs.map(({ attempts }) => attempts > 1)).toEqual([false, true, false]);
});

it('refuses another artefact under its version: before the merge, and when it is published', async () => {
  const other = join(setup.directory, 'other');
  await writeFiles(other, adapterFiles(tinyAdapter({ seed: 9 })));
  const first = await merged('taken');
  const { places } = first;
  const second = await merged('taken-late', {
    adapter: other,
    places: { ...places, directory: join(setup.target, 'elsewhere') },
  });
  await approve(first.release);
  await expectPublished(places, await first.release.result());
  const before = await inBucket(targets, places, ARTEFACT);
  await approve(second.release);
  const late = await failureOf(second.release);
  expect(late).toMatchObject({ code: 'publish.conflict' });
  expect(late.message).toMatch(/(s3|oci):\/\/.*merged-tiny/);
  expect(await inBucket(targets, places, ARTEFACT)).toEqual(before);
  expect(await inRegistry(targets, places, ARTEFACT)).toEqual(before);
  // Where nothing was in the way it is published, and nobody is pointed at it.
  expect(await inDirectory(second.places, ARTEFACT)).not.toEqual(before);
  expect(await inDirectory(second.places, 'latest')).toBe(undefined);

  const third = await start('taken-early', { adapter: other, places });
  expect(await failureOf(third.release)).toMatchObject({ code: 'publish.conflict' });
  const started = (await activityRuns(third.release)).map(({ type }) => type);
  expect(started.at(-1)).toBe('plan');
});

it('waits for room in a directory that is full, and shows nothing there until it has it', async () => {
  const volume = join(setup.directory, 'volume');
  const bytes = 48 * 1024 * 1024;
  await mkdir(volume);
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'weldline-test', volume]);
  try {
    const { release, places } = await merged('full', { directory: join(volume, 'releases') });
    const filler = join(volume, 'filler');
    await writeFile(filler, Buffer.alloc(bytes - 128 * 1024));
    await approve(release);
    const waiting = await waitingOf(release, 'publish');
    expect(waiting).toMatchObject({ code: 'disk.full' });
    expect(waiting.message).toContain(places.directory);
    await expect(access(join(places.directory, ARTEFACT))).rejects.toThrow('ENOENT');
    expect(await inRegistry(targets, places, ARTEFACT)).toBeDefined();
    await rm(filler);
    await release.signal(resumeSignal);
    await expectPublished(places, await release.result());
  } finally {
    execFileSync('umount', [volume]);
  }
});

it('signs with the key that is there, and makes documents again that are damaged meanwhile', async () => {
  const { release, places } = await merged('replaced');
  const artefacts = join(setup.home, 'artefacts');
  const before = await readdir(artefacts);
  const publicKey = await writeSigningKey(targets.keyFile);
  targets.s3.fail({ kind: 'status', status: 503, times: Number.POSITIVE_INFINITY });
  await approve(release);
  await waitFor('the other targets', () => inRegistry(targets, places, ARTEFACT));
  const [made = ''] = (await readdir(artefacts)).filter((name) => !before.includes(name));
  await writeFile(join(artefacts, made, 'README.md'), 'somebody was here');
  targets.s3.clear();
  await release.result();
  const local = await inDirectory(places, ARTEFACT);
  expect(await inRegistry(targets, places, ARTEFACT)).toEqual(local);
  const files = await targets.bucket.read(`${places.prefix}${ARTEFACT}/`);
  expect([...files.keys()]).toEqual([...(local ?? new Map()).keys()]);
  expect(files.get('README.md')?.toString()).not.toContain('somebody was here');
  expect((await inBucket(targets, places, ARTEFACT)).get('README.md')).toBe(
    local?.get('README.md'),
  );
  const trust = { publicKey };
  for (const digests of [local ?? new Map(), await inBucket(targets, places, ARTEFACT)]) {
    const signed = [...digests].map(([path, sha256]) => ({ path, sha256 }));
    const isLocal = digests === local;
    const text = isLocal
      ? await readFile(join(places.directory, ARTEFACT, 'model.sig'), 'utf8')
      : (files.get('model.sig')?.toString() ?? '');
    const { ignored } = await verifyModelSignature(text, { files: signed, trust });
    expect(ignored).toEqual([]);
  }
});

it('names an adapter that changed since it was merged, and publishes it nowhere', async () => {
  const { release, places } = await merged('trained-on');
  const path = join(setup.adapter, 'adapter_config.json');
  const text = await readFile(path, 'utf8');
  await writeFile(path, `${text} `);
  await approve(release);
  const waiting = await waitingOf(release, 'publish');
  expect(waiting).toMatchObject({ code: 'publish.source-changed' });
  expect(waiting.message).toContain(path);
  expect(await inDirectory(places, ARTEFACT)).toBe(undefined);
  expect(await inBucket(targets, places, ARTEFACT)).toEqual(new Map());
  expect(await inRegistry(targets, places, ARTEFACT)).toBe(undefined);
  await writeFile(path, text);
  await release.signal(resumeSignal);
  await expectPublished(places, await release.result());
  const archived = await readFile(
    join(places.directory, ARTEFACT, 'adapters/tone/adapter_config.json'),
    'utf8',
  );
  expect(sha256Of(archived)).toBe(sha256Of(text));
});

it('keeps the move of somebody who was faster in the history of an alias, and moves it once', async () => {
  const first = await merged('raced');
  await approve(first.release);
  await first.release.result();
  const { places } = first;
  // One after the other: an alias is not moved to a release that was begun before where it points.
  const second = await merged('raced', { version: '2.0.0', places });
  const third = await merged('raced', { version: '3.0.0', places });
  const names = ['2.0.0', '3.0.0'].map((version) => ARTEFACT.replace('1.0.0', version));
  await approve(second.release);
  await second.release.result();
  const target = { bucket: 'models', prefix: 'raced', endpoint: targets.s3.origin };
  const s3 = await createS3Publisher(target, { patience: PATIENCE });
  // The last time that it is read before it is written.
  const reading = { method: /^GET$/, path: /aliases\/latest/ };
  const answer = targets.s3.hold({ ...reading, skip: 2 });
  await approve(third.release);
  await waitFor(
    'the alias to be read',
    async () => targets.s3.requests.some(({ fault }) => fault === 'slow') || undefined,
  );
  targets.oci.fail({
    ...{ kind: 'status', status: 401, times: Number.POSITIVE_INFINITY },
    ...{ method: /^PUT$/, path: /manifests\/latest/ },
  });
  await promote(s3, { release: ARTEFACT }, 'latest', NEVER);
  answer();
  expect(await waitingOf(third.release, 'publish')).toMatchObject({
    code: 'publish.unauthorized',
  });
  const history = [ARTEFACT, names[0], ARTEFACT];
  const aliasNow = () => s3.readAlias('latest', undefined, NEVER);
  expect(await aliasNow()).toEqual({ release: names[1], history });
  const runs = (await activityRuns(third.release)).filter(({ type }) => type === 'moveAliases');
  expect(runs.map(({ failures }) => failures[0])).toEqual([
    ...[undefined, 'publish.alias-moved', 'publish.unauthorized'],
  ]);

  // It waits, and somebody takes the alias back: it stays there.
  await rollBack(s3, { alias: 'latest' }, () => true, NEVER);
  targets.oci.clear();
  await third.release.signal(resumeSignal);
  await third.release.result();
  expect(await aliasNow()).toEqual({ release: ARTEFACT, history: history.slice(0, -1) });
  expect(await inRegistry(targets, places, 'latest')).toEqual(
    await inRegistry(targets, places, names[1] ?? ''),
  );
});
