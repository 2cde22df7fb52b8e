/** The embedded server is killed while a release runs on it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { embeddedServerStatus, stopEmbeddedServer } from '../../workers/embedded-server.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { Random } from '../doubles/random.ts';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import { startCommand } from '../harness/command.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import { type ReleaseSetup, setUpRelease, writeRecipe } from '../harness/release-setup.ts';
import { waitFor } from '../harness/wait-for.ts';

const KILLS = 4;
/** A kill strikes within this time after the server is up again. */
const DELAY_MS_MAX = 1_500;

let root: string;
let setup: ReleaseSetup;
let expected: ReadonlyMap<string, string>;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-server-kill-'));
  setup = await setUpRelease(root, heavyModel({ layers: 8, shards: 4, extent: 1024, rank: 1536 }));
  const output = join(root, 'expected');
  await mergeDirectories({ base: setup.base, adapter: setup.adapter, output, threads: 2 });
  expected = await checkpointDigests(output);
});
afterAll(async () => {
  await stopEmbeddedServer(setup.home, { force: true });
  await rm(root, { recursive: true, force: true });
});

describe.each([1, 4])('a release with %i threads whose server is killed', (threads) => {
  it(`goes on when the server is back, ${KILLS} times over, and makes the same bytes`, async () => {
    await rm(join(setup.home, 'merges'), { recursive: true, force: true });
    const random = new Random(100 + threads);
    const version = `1.0.${threads}`;
    const recipe = await writeRecipe(setup, { version, merge: { threads } });
    const release = await startCommand(['release', recipe, '--json'], {
      variables: setup.variables,
    });
    const hasEnded = (): boolean => release.child.exitCode !== null;
    let kills = 0;
    let killed: number | undefined;
    for (; kills < KILLS && !hasEnded(); kills++) {
      const pid = await waitFor('a server that answers', async () => {
        if (hasEnded()) return 0;
        const status = await embeddedServerStatus(setup.home);
        return status.state === 'running' && status.pid !== killed ? status.pid : undefined;
      });
      await sleep(random.below(DELAY_MS_MAX));
      if (hasEnded() || pid === 0) break;
      process.kill(pid, 'SIGKILL');
      killed = pid;
    }
    const { status, stdout, stderr } = await release.ended;
    expect(status, stdout + stderr).toBe(0);
    expect(kills).toBe(KILLS);
    expect(stderr.match(/died and runs again/g)?.length).toBe(KILLS);
    const { publications } = JSON.parse(stdout);
    expect(await checkpointDigests(publications[0].location)).toEqual(expected);
    expect((await embeddedServerStatus(setup.home)).state).toBe('stopped');
  }, 240_000);
});
