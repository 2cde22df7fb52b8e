/** A worker that is told to stop in the middle of a shard. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { mergeWorkspace } from '../../activities/workspace.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import { startCommand } from '../harness/command.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import { recipeOf, releaseInput, setUpRelease } from '../harness/release-setup.ts';
import { startRelease, startTestWorkers, waitForStatus } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(async () => {
  await server.stop();
});

it('writes down how far it is, and the next one makes the same bytes', async () => {
  const setup = await setUpRelease(join(server.directory, 'terminated'), {
    // One file of 50 MB: of its own accord the journal speaks of it only when it is whole.
    ...heavyModel({ layers: 3, shards: 1, extent: 2048, rank: 2048 }),
    variables: { WELDLINE_THREADS: '1', TEMPORAL_ADDRESS: server.address },
  });
  const worker = await startCommand(['worker'], { variables: setup.variables });
  await worker.hasWritten(/Working/);
  const release = await startRelease(server.client, releaseInput(recipeOf(setup)));
  const { plan } = await waitForStatus(release, 'a plan', (status) => status.plan !== undefined);
  const { staging } = mergeWorkspace(setup.home, plan?.digest ?? '');
  await waitFor('the first bytes', async () => {
    const file = await stat(join(staging.files, 'model.safetensors.partial')).catch(
      () => undefined,
    );
    return file !== undefined && file.blocks > 0 ? true : undefined;
  });
  worker.child.kill('SIGTERM');
  expect((await worker.ended).status).toBe(0);

  const journal = await readFile(join(staging.journals, 'model.safetensors.jsonl'), 'utf8');
  const lines = journal.trimEnd().split('\n');
  expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({ end: expect.any(Number) });

  const workers = await startTestWorkers(server, setup.environment);
  try {
    const { publications, planDigest } = await release.result();
    expect(planDigest).toBe(plan?.digest);
    const output = join(setup.directory, 'expected');
    await mergeDirectories({ base: setup.base, adapter: setup.adapter, output });
    const digests = await checkpointDigests(publications[0]?.location ?? '');
    expect(digests).toEqual(await checkpointDigests(output));
  } finally {
    await workers.stop();
  }
}, 240_000);
