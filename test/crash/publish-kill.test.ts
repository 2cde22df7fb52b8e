/** Workers that are killed while they publish to several targets and move aliases there. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { DirectoryPublisher } from '../../publishers/directory/directory-publisher.ts';
import { PATIENCE } from '../../publishers/publisher.ts';
import { createS3Publisher } from '../../publishers/s3/s3-publisher.ts';
import type { ReleaseResult } from '../../workflows/messages.ts';
import { readFiles } from '../doubles/merge-directories.ts';
import type { FaultyProxy, ProxyFault } from '../harness/faulty-proxy.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import {
  inBucket,
  inDirectory,
  inRegistry,
  type Places,
  type PublishTargets,
  placesOf,
  publishingRecipe,
  startPublishTargets,
} from '../harness/publish-targets.ts';
import { type ReleaseSetup, releaseInput, setUpRelease } from '../harness/release-setup.ts';
import { activityRuns, startRelease, type TestRelease } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';
import { WorkerProcess } from '../harness/worker-process.ts';

/** Of 1 MB each. */
const SHARDS = 4;
const HEARTBEAT_TIMEOUT_MS = 3_000;
/** Longer than its worker lives. */
const LATE_MS = 30_000;
/** Claims, aliases, manifests and configurations; all shards together have 64 times as much. */
const NOTES_BYTES_MAX = 64 * 1024;
const NEVER = new AbortController().signal;

let server: TestServer;
let targets: PublishTargets;
let setup: ReleaseSetup;

beforeAll(async () => {
  server = await startTestServer();
  targets = await startPublishTargets(server.directory);
  const model = heavyModel({ layers: SHARDS, shards: SHARDS, extent: 512, rank: 4 });
  const { variables } = targets;
  setup = await setUpRelease(join(server.directory, 'release'), { ...model, variables });
});
afterAll(async () => {
  await targets?.close();
  await server?.stop();
});

/** A release that is caught in one place, at its bucket and its registry. */
class Caught {
  readonly name: string;
  readonly places: Places;
  #release: TestRelease | undefined;

  constructor(name: string) {
    this.name = name;
    this.places = placesOf(targets, setup, name);
  }

  async start(): Promise<void> {
    const { name } = this;
    const recipe = publishingRecipe(setup, this.places, { name });
    const input = releaseInput(recipe, { heartbeatTimeoutMs: HEARTBEAT_TIMEOUT_MS });
    this.#release = await startRelease(server.client, input);
  }

  get release(): TestRelease {
    return this.#release!;
  }

  /** Requests for objects of this release, and for blobs and tags of it. */
  s3(path: string): RegExp {
    return new RegExp(`^/models/${this.name}/${path}`);
  }
  oci(path: string): RegExp {
    return new RegExp(`^/v2/models/${this.name}/${path}`);
  }
}

/** Adds a fault; it has hit when the returned function says so. */
function trap(proxy: FaultyProxy, fault: ProxyFault): () => boolean {
  proxy.fail(fault);
  return () =>
    proxy.requests.some(
      ({ method, path, fault: kind }) =>
        kind === fault.kind && fault.method?.test(method) && fault.path?.test(path),
    );
}

const allSprung = (traps: readonly (() => boolean)[]) => async () =>
  traps.every((isSprung) => isSprung()) || undefined;

/** Files that an attempt left where nobody looks for them. */
async function leftIn({ directory }: Places): Promise<readonly string[]> {
  return (await readdir(directory)).filter((name) => /\.(partial|left)$/.test(name));
}

it('finishes one version at each target, the same at all, however often workers are killed', {
  timeout: 120_000,
}, async () => {
  const upload = new Caught('upload');
  const commit = new Caught('commit');
  const answer = new Caught('answer');
  const all = [upload, commit, answer];
  const put = { method: /^PUT$/ };
  const sending = { method: /^(PATCH|PUT)$/ };
  const late = { kind: 'slow', delayMs: LATE_MS } as const;
  const publishing = [
    trap(targets.s3, { kind: 'stall', ...put, path: upload.s3('.*/model-00002-of') }),
    trap(targets.oci, { kind: 'stall', ...sending, path: upload.oci('blobs/uploads/'), skip: 2 }),
    trap(targets.s3, { kind: 'stall', ...put, path: commit.s3('.*/release.json') }),
    trap(targets.oci, { kind: 'stall', ...put, path: commit.oci('manifests/merged-') }),
    trap(targets.s3, { ...late, ...put, path: answer.s3('.*/release.json') }),
    trap(targets.oci, { ...late, ...put, path: answer.oci('manifests/merged-') }),
  ];
  let worker = new WorkerProcess(server, setup.variables);
  try {
    await Promise.all(all.map((each) => each.start()));
    await waitFor('publications that are caught', allSprung(publishing));
    const artefact = 'merged-tiny-1.0.0-adapter-tone-3';
    await waitFor('the commits whose answers are late', async () => {
      const isAtS3 = (await inBucket(targets, answer.places, artefact)).has('release.json');
      return isAtS3 && (await inRegistry(targets, answer.places, artefact)) ? true : undefined;
    });
    await worker.kill();

    for (const { name, places } of [upload, commit]) {
      const there = await inBucket(targets, places, artefact);
      expect([name, there.has('release.json'), there.size > 0]).toEqual([name, false, true]);
      expect(await inRegistry(targets, places, artefact), name).toBe(undefined);
    }
    for (const { places } of all) await expectAllOrNothing(places, artefact);

    const moving = [
      trap(targets.s3, { kind: 'stall', ...put, path: upload.s3('aliases/latest') }),
      trap(targets.oci, { ...late, ...put, path: commit.oci('manifests/latest') }),
    ];
    worker = new WorkerProcess(server, setup.variables);
    await waitFor('aliases that are caught', allSprung(moving));
    await waitFor('the alias whose answer is late', () =>
      inRegistry(targets, commit.places, 'latest'),
    );
    await worker.kill();
    expect(await aliasAtS3(upload.places)).toBe(undefined);
    for (const { places } of [upload, commit]) await expectAllOrNothing(places, artefact);

    worker = new WorkerProcess(server, setup.variables);
    for (const each of all) await expectFinished(each, await each.release.result());
    for (const each of [upload, commit]) {
      const runs = (await activityRuns(each.release)).filter(({ attempts }) => attempts > 1);
      expect(runs.map(({ type }) => type)).toEqual(['publish', 'publish', 'moveAliases']);
    }
    expectBytesBounded(upload, await sizesOf(upload, artefact), 'model-00002-of-00004.safetensors');
    expectBytesBounded(commit, await sizesOf(commit, artefact), 'release.json');
    expectBytesBounded(answer, await sizesOf(answer, artefact));
  } finally {
    await worker.kill();
  }
});

/** A directory is renamed when all of it is there. */
async function expectAllOrNothing(places: Places, artefact: string): Promise<void> {
  const there = await inDirectory(places, artefact);
  if (there === undefined) return;
  expect([...there.keys()]).toEqual(expect.arrayContaining(['release.json', 'model.sig']));
}

function aliasAtS3({ prefix }: Places) {
  const target = { bucket: 'models', prefix: prefix.slice(0, -1), endpoint: targets.s3.origin };
  return createS3Publisher(target, { patience: PATIENCE }).then((s3) =>
    s3.readAlias('latest', undefined, NEVER),
  );
}

async function expectFinished({ places, name }: Caught, result: ReleaseResult): Promise<void> {
  const { artefact, publications, warnings } = result;
  expect(warnings).toEqual([]);
  expect(publications.map(({ target, existed }) => [target, existed])).toEqual([
    ['directory', false],
    ['s3', false],
    ['oci', false],
  ]);
  const local = await inDirectory(places, artefact);
  expect([...(local ?? new Map()).keys()]).toEqual(
    expect.arrayContaining(['README.md', 'model.sig', 'provenance.intoto.json', 'release.json']),
  );
  expect(await inBucket(targets, places, artefact), name).toEqual(local);
  expect(await inRegistry(targets, places, artefact), name).toEqual(local);
  expect(await leftIn(places)).toEqual([]);
  // Moved once: a second move would have left a history.
  const moved = { release: artefact, history: [] };
  const directory = new DirectoryPublisher(places.directory);
  expect(await directory.readAlias('latest', undefined)).toMatchObject(moved);
  expect(await aliasAtS3(places)).toEqual(moved);
  expect(await inRegistry(targets, places, 'latest')).toEqual(local);
  const keys = await targets.bucket.keysAndUploads(places.prefix);
  const files = [...(local ?? new Map()).keys()].map((path) => `${artefact}/${path}`);
  expect([...keys].sort()).toEqual(
    [...files, 'aliases/latest.json'].map((key) => `${places.prefix}${key}`).sort(),
  );
}

async function sizesOf({ places }: Caught, artefact: string): Promise<Map<string, number>> {
  const root = join(places.directory, artefact);
  const sizes = new Map<string, number>();
  for (const path of (await readFiles(root)).keys()) {
    sizes.set(path, (await stat(join(root, path))).size);
  }
  return sizes;
}

/** What was being sent when its worker was killed may go again, and nothing else. */
function expectBytesBounded(
  { name }: Caught,
  sizes: ReadonlyMap<string, number>,
  interrupted?: string,
): void {
  const total = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  const again = interrupted === undefined ? 0 : (sizes.get(interrupted) ?? 0);
  for (const [proxy, path] of [
    [targets.s3, `/models/${name}/`],
    [targets.oci, `/v2/models/${name}/`],
  ] as const) {
    const sent = proxy.uploadedBytes(new RegExp(`^(PUT|POST|PATCH) ${path}`));
    console.log(`${path}: ${sent} bytes sent for ${total}, of which ${again} may go twice`);
    expect(sent).toBeGreaterThanOrEqual(total);
    expect(sent).toBeLessThan(total + again + NOTES_BYTES_MAX);
  }
}
