/** Workspaces that many releases share, and one that was copied from another machine. */
import { cp, mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readEnvironment } from '../../config/environment.ts';
import {
  acquireEmbeddedServer,
  embeddedServerStatus,
  stopEmbeddedServer,
} from '../../workers/embedded-server.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { startMerging } from '../harness/activity-worker.ts';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import { startRelease, startTestWorkers } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { queueReleases } from '../soak/queued-releases.ts';
import { testTemporalCli } from '../tools/test-temporal-cli.ts';

/** `npm run soak -- --queued 50` does more of them. */
const RELEASES = 10;

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(async () => {
  await server.stop();
});

async function expectedOf(setup: ReleaseSetup): Promise<ReadonlyMap<string, string>> {
  const output = join(setup.directory, 'expected');
  await mergeDirectories({ base: setup.base, adapter: setup.adapter, output });
  return checkpointDigests(output);
}

it(`${RELEASES} releases queued at once for two workers are all published, each once`, async () => {
  const setup = await setUpRelease(join(server.directory, 'queued'));
  const start = () => startTestWorkers(server, setup.environment);
  const workers = await Promise.all([start(), start()]);
  try {
    const expected = await expectedOf(setup);
    const releases = await queueReleases(server, setup, RELEASES);
    expect(releases).toHaveLength(RELEASES);
    for (const { name, published, existed, digests } of releases) {
      expect(published, name).toEqual(['latest', expect.stringMatching(/^merged-tiny-1\.0\.0-/)]);
      expect(existed, name).toBe(false);
      expect(digests, name).toEqual(expected);
    }
    // One plan, made once: whoever came second found it.
    expect(await readdir(join(setup.home, 'merges'))).toHaveLength(1);
  } finally {
    await Promise.all(workers.map((each) => each.stop()));
  }
}, 240_000);

it('a workspace that was copied from another machine is gone on with, and its owner left alone', async () => {
  const setup = await setUpRelease(join(server.directory, 'copied'));
  const expected = await expectedOf(setup);
  const cli = await testTemporalCli();
  const original = await acquireEmbeddedServer({ home: setup.home, cli, ui: false });
  const control = await startTestWorkers(server, setup.environment, ['control']);
  const input = releaseInput(recipeOf(setup, { name: 'copied' }), {
    parallelShards: 1,
    heartbeatTimeoutMs: 60_000,
  });
  const release = await startRelease(server.client, input);
  const secondBegun = Promise.withResolvers<void>();
  const stopMerging = await startMerging(server, setup.environment, {
    holds: (_, { shard }: { readonly shard: number }) => {
      if (shard > 0) secondBegun.resolve();
      return shard > 0;
    },
  });
  await secondBegun.promise;
  await stopMerging();
  const [planDigest = ''] = await readdir(join(setup.home, 'merges'));
  const first = join(planDigest, 'staging', 'files', 'model-00001-of-00002.safetensors');
  await release.terminate();
  await control.stop();

  // Elsewhere: other inodes, other times, and processes whose ids mean others here.
  const directory = join(server.directory, 'elsewhere');
  await mkdir(directory);
  const home = join(directory, 'home');
  // Its database is copied as a machine that stands still has it.
  const { pid } = await embeddedServerStatus(setup.home);
  process.kill(pid!, 'SIGSTOP');
  try {
    await cp(setup.home, home, { recursive: true });
  } finally {
    process.kill(pid!, 'SIGCONT');
  }
  const copied = await stat(join(home, 'merges', first));
  const there = await acquireEmbeddedServer({ home, cli, ui: false });
  expect(there.address).not.toBe(original.address);
  expect((await embeddedServerStatus(setup.home)).state).toBe('running');
  await there.release();
  await original.release();
  await stopEmbeddedServer(home, { force: true });
  await rm(setup.home, { recursive: true });

  const environment = readEnvironment({ ...setup.variables, WELDLINE_HOME: home });
  const workers = await startTestWorkers(server, environment);
  try {
    const result = await (await startRelease(server.client, input)).result();
    expect(result.planDigest).toBe(planDigest);
    expect(result.directory.startsWith(home)).toBe(true);
    expect(await checkpointDigests(result.publications[0]?.location ?? '')).toEqual(expected);
    // The shard that was merged there is the file that came with the copy.
    const sealed = await stat(join(result.directory, 'model-00001-of-00002.safetensors'));
    expect([sealed.ino, sealed.mtimeMs]).toEqual([copied.ino, copied.mtimeMs]);
  } finally {
    await workers.stop();
  }
}, 240_000);
