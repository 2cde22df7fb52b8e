/** The embedded server is killed while a release runs on it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemErrorCode } from '../../engine/errors.ts';
import { embeddedServerStatus, stopEmbeddedServer } from '../../workers/embedded-server.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { Random } from '../doubles/random.ts';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import { startCommand } from '../harness/command.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import { type ReleaseSetup, setUpRelease, writeRecipe } from '../harness/release-setup.ts';
import { waitFor } from '../harness/wait-for.ts';

/** As many as the release gives occasion to: a fast machine is done before the last. */
const KILLS_MAX = 4;
const KILLS_MIN = 2;
/** A kill strikes within this time after the server is up again. */
const DELAY_MS_MAX = 800;

let root: string;
let setup: ReleaseSetup;
let expected: ReadonlyMap<string, string>;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-server-kill-'));
  setup = await setUpRelease(root, heavyModel({ layers: 8, shards: 4, extent: 1024, rank: 3072 }));
  const output = join(root, 'expected');
  await mergeDirectories({ base: setup.base, adapter: setup.adapter, output, threads: 2 });
  expected = await checkpointDigests(output);
});
afterAll(async () => {
  await stopEmbeddedServer(setup.home, { force: true });
  await rm(root, { recursive: true, force: true });
});

describe.each([1, 4])('a release with %i threads whose server is killed', (threads) => {
  it('goes on when the server is back, again and again, and makes the same bytes', async () => {
    await rm(join(setup.home, 'merges'), { recursive: true, force: true });
    const random = new Random(100 + threads);
    const version = `1.0.${threads}`;
    const recipe = await writeRecipe(setup, { version, merge: { threads } });
    const release = await startCommand(['release', recipe], { variables: setup.variables });
    await release.hasWritten(/^Release /m);
    const hasEnded = (): boolean => release.child.exitCode !== null;
    let kills = 0;
    const restarts = (): number => release.stderr.match(/died and runs again/g)?.length ?? 0;
    for (; kills < KILLS_MAX && !hasEnded(); kills++) {
      // Not before the release says so: a server that dies while it starts is a failed start.
      const pid = await waitFor('the server to be back', async () => {
        if (hasEnded()) return 0;
        return restarts() === kills ? (await embeddedServerStatus(setup.home)).pid : undefined;
      });
      await sleep(random.below(DELAY_MS_MAX));
      if (hasEnded() || pid === 0) break;
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        if (systemErrorCode(error) !== 'ESRCH') throw error;
        // The release is done, and has stopped its server.
        break;
      }
    }
    const { status, stdout, stderr } = await release.ended;
    expect(status, stdout + stderr).toBe(0);
    expect(kills).toBeGreaterThanOrEqual(KILLS_MIN);
    expect(restarts()).toBeGreaterThanOrEqual(KILLS_MIN);
    const [, published = ''] = /^ {2}published +(\S+)/m.exec(stdout) ?? [];
    expect(await checkpointDigests(published)).toEqual(expected);
    expect((await embeddedServerStatus(setup.home)).state).toBe('stopped');
  }, 240_000);
});
