/** `weldline release` and its sisters on the embedded server, as on a laptop. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  acquireEmbeddedServer,
  type EmbeddedServer,
  embeddedServerStatus,
  stopEmbeddedServer,
} from '../../workers/embedded-server.ts';
import { mergeDirectories, readFiles } from '../doubles/merge-directories.ts';
import {
  type CommandResult,
  type RunningCommand,
  runCommand,
  startCommand,
} from '../harness/command.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import {
  type RecipeChanges,
  type ReleaseSetup,
  setUpRelease,
  writeRecipe,
} from '../harness/release-setup.ts';
import { testTemporalCli } from '../tools/test-temporal-cli.ts';

// Every command is a process that loads the SDK: seconds each when the machine is busy.
vi.setConfig({ testTimeout: 240_000 });

let root: string;
const running: RunningCommand[] = [];

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-cli-'));
});
afterEach(() => {
  for (const { child } of running.splice(0)) child.kill('SIGKILL');
});
afterAll(async () => {
  for (const name of await readdir(root)) {
    await stopEmbeddedServer(join(root, name, 'home'), { force: true });
  }
  await rm(root, { recursive: true, force: true });
});

const weldline = (setup: ReleaseSetup, ...args: string[]): Promise<CommandResult> =>
  runCommand(args, { variables: setup.variables });

async function start(setup: ReleaseSetup, ...args: string[]): Promise<RunningCommand> {
  const command = await startCommand(args, { variables: setup.variables });
  running.push(command);
  return command;
}

/** The server of a home ends with its last user; this says which processes of it are left. */
function processesOf(setup: ReleaseSetup): string[] {
  return execFileSync('ps', ['-ww', '-eo', 'pid,args'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(setup.directory));
}

describe('a release on the embedded server', () => {
  let setup: ReleaseSetup;
  let recipe: string;
  beforeAll(async () => {
    setup = await setUpRelease(join(root, 'usual'));
    recipe = await writeRecipe(setup);
  });

  it('runs to its end, shows its stages, and leaves no process behind', async () => {
    const { status, stdout, stderr } = await weldline(setup, 'release', recipe);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/^Release release-tone-model-1\.0\.0$/m);
    for (const stage of ['resolve', 'preflight', 'plan', 'merge', 'seal', 'verify', 'publish']) {
      expect(stdout).toMatch(new RegExp(`^  ${stage} +[\\d.]+ m?s`, 'm'));
    }
    expect(stdout).toMatch(/^Released merged-tiny-1\.0\.0-adapter-tone-[0-9a-f]{8}$/m);
    // A pipe gets plain lines.
    for (const control of ['\r', '\u001b']) expect(stdout + stderr).not.toContain(control);
    expect(processesOf(setup)).toEqual([]);
  });
});

describe('releases while another process uses the server', () => {
  let setup: ReleaseSetup;
  let recipe: string;
  let server: EmbeddedServer;
  beforeAll(async () => {
    setup = await setUpRelease(join(root, 'shared'));
    recipe = await writeRecipe(setup);
    server = await acquireEmbeddedServer({
      home: setup.home,
      cli: await testTemporalCli(),
      ui: false,
    });
    expect((await weldline(setup, 'release', recipe)).status).toBe(0);
  });
  afterAll(async () => {
    await server.release();
  });

  it('finds all done the second time, and says the result as JSON alone', async () => {
    const { status, stdout } = await weldline(setup, 'release', recipe, '--json');
    expect(status).toBe(0);
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ publications: [{ existed: true }] });
    const output = join(root, 'shared', 'expected');
    await mergeDirectories({ base: setup.base, adapter: setup.adapter, output });
    const published = await readFiles(result.publications[0].location);
    for (const [name, bytes] of await readFiles(output)) {
      if (name !== 'weldline.json') expect(published.get(name)?.equals(bytes), name).toBe(true);
    }
  });

  it('is listed and has a status after its end', async () => {
    const list = await weldline(setup, 'list', '--json');
    expect(JSON.parse(list.stdout)).toMatchObject([
      { id: 'release-tone-model-1.0.0', state: 'completed', runs: 2 },
    ]);
    const text = await weldline(setup, 'status', 'tone-model-1.0.0');
    expect(text).toMatchObject({ status: 0, stderr: '' });
    expect(text.stdout).toMatch(/^release-tone-model-1\.0\.0 +completed$/m);
    expect(text.stdout).toMatch(/^ +publish +done/m);
    const json = await weldline(setup, 'status', '--json');
    expect(JSON.parse(json.stdout)).toMatchObject({
      id: 'release-tone-model-1.0.0',
      state: 'completed',
      name: 'tone-model',
    });
    expect(json.stderr).toBe('');
  });

  it.each([
    [['status', 'nothing-1'], 'release.not-found'],
    [['resume', 'nothing-1'], 'release.not-found'],
    [['cancel', 'nothing-1'], 'release.not-found'],
    [['cancel', 'tone-model-1.0.0'], 'release.not-found'],
  ])('%j fails with %s and names what there is', async (args, code) => {
    const { status, stdout } = await weldline(setup, ...args, '--json');
    expect(status).toBe(1);
    const { error } = JSON.parse(stdout);
    expect(error.code).toBe(code);
    expect(error.message).toContain('release-tone-model-1.0.0');
  });

  it('fails with the code of what went wrong, and that is what status says later', async () => {
    const changes: RecipeChanges = { version: '6.6.6', adapter: join(root, 'shared', 'nowhere') };
    const failed = await weldline(setup, 'release', await writeRecipe(setup, changes));
    expect(failed.status).toBe(1);
    expect(failed.stderr).toContain('[source.not-found]');
    expect(failed.stderr).toContain(join(root, 'shared', 'nowhere'));
    const { stdout } = await weldline(setup, 'status', 'tone-model-6.6.6');
    expect(stdout).toMatch(/^release-tone-model-6\.6\.6 +failed$/m);
    expect(stdout).toContain(join(root, 'shared', 'nowhere'));
  });

  it('waits with exit code 3 for what a person can mend; resume goes on', async () => {
    const obstacle = join(root, 'shared', 'obstacle');
    await writeFile(obstacle, '');
    const path = await writeRecipe(setup, { version: '2.0.0', targets: [join(obstacle, 'out')] });
    const waits = await weldline(setup, 'release', path, '--json');
    expect(waits.status).toBe(3);
    expect(JSON.parse(waits.stdout)).toMatchObject({
      id: 'release-tone-model-2.0.0',
      waiting: { stage: 'preflight', code: 'publish.not-writable' },
    });
    expect(waits.stderr).toContain('weldline resume release-tone-model-2.0.0');
    const status = await weldline(setup, 'status');
    expect(status.stdout).toMatch(/^release-tone-model-2\.0\.0 +waiting$/m);
    expect((await weldline(setup, 'resume', '--json')).status).toBe(3);
    await rm(obstacle);
    const resumed = await weldline(setup, 'resume', '--json');
    expect(resumed.status, resumed.stderr).toBe(0);
    expect(JSON.parse(resumed.stdout)).toMatchObject({ publications: [{ existed: false }] });
  });

  it('that waits can be cancelled, by a name that looks like an id', async () => {
    const obstacle = join(root, 'shared', 'obstacle-2');
    await writeFile(obstacle, '');
    const path = await writeRecipe(setup, {
      name: 'release-notes',
      targets: [join(obstacle, 'out')],
    });
    expect((await weldline(setup, 'release', path)).status).toBe(3);
    const cancelled = await weldline(setup, 'cancel', 'release-notes-1.0.0', '--json');
    expect(cancelled).toMatchObject({ status: 0 });
    expect(JSON.parse(cancelled.stdout)).toEqual({
      id: 'release-release-notes-1.0.0',
      cancelled: true,
      removed: [],
    });
    const { stdout } = await weldline(setup, 'status', '--json');
    expect(JSON.parse(stdout)).toMatchObject({ state: 'cancelled' });
  });
});

describe('a release that is interrupted', () => {
  let setup: ReleaseSetup;
  beforeAll(async () => {
    setup = await setUpRelease(join(root, 'heavy'), {
      ...heavyModel({ layers: 4, shards: 2, extent: 2048, rank: 1536 }),
      variables: { WELDLINE_THREADS: '1' },
    });
  });

  it('stops at Ctrl-C with 130, leaves nothing running, and goes on with the same command', async () => {
    const recipe = await writeRecipe(setup);
    const command = await start(setup, 'release', recipe);
    await command.hasWritten(/^ {2}plan /m);
    command.signal('SIGINT');
    const { status, stderr } = await command.ended;
    expect(status, stderr).toBe(130);
    expect(stderr).toMatch(/^Stopped\. The same command, or weldline resume, goes on where it/m);
    expect(stderr).not.toContain('error');
    expect(processesOf(setup)).toEqual([]);
    expect((await embeddedServerStatus(setup.home)).state).toBe('stopped');
    const shown = await weldline(setup, 'status', '--json');
    expect(JSON.parse(shown.stdout)).toMatchObject({ state: 'running' });
    const again = await weldline(setup, 'release', recipe, '--json');
    expect(again.status, again.stderr).toBe(0);
    expect(JSON.parse(again.stdout)).toMatchObject({ publications: [{ existed: false }] });
  });

  it('can be watched from two terminals: the second joins the first', async () => {
    const recipe = await writeRecipe(setup, { version: '2.0.0' });
    // With all to be merged again the first is not over when the second begins.
    await rm(join(setup.home, 'merges'), { recursive: true });
    const first = await start(setup, 'release', recipe, '--json');
    const second = await start(setup, 'release', recipe, '--json');
    const results = await Promise.all([first.ended, second.ended]);
    const [one, two] = results.map(({ status, stdout, stderr }) => {
      expect(status, stderr).toBe(0);
      return JSON.parse(stdout);
    });
    expect(one).toEqual(two);
    const list = JSON.parse((await weldline(setup, 'list', '--json')).stdout);
    const [listed] = list.filter(({ id }: { id: string }) => id === 'release-tone-model-2.0.0');
    expect(listed).toMatchObject({ runs: 1 });
    expect(processesOf(setup)).toEqual([]);
  });

  it('refuses another recipe under the name of one that runs', async () => {
    const obstacle = join(root, 'heavy', 'obstacle');
    await writeFile(obstacle, '');
    const targets = [join(obstacle, 'out')];
    await weldline(setup, 'release', await writeRecipe(setup, { version: '3.0.0', targets }));
    const other = await writeRecipe(setup, { version: '3.0.0', trainingRun: 'other', targets });
    const refused = await weldline(setup, 'release', other);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain('[release.already-running]');
    expect((await weldline(setup, 'cancel', 'release-tone-model-3.0.0')).status).toBe(0);
  });

  it('ends when its server is stopped for good, and goes on when it is run again', async () => {
    const recipe = await writeRecipe(setup, { version: '5.0.0', merge: { dtype: 'float16' } });
    const command = await start(setup, 'release', recipe);
    await command.hasWritten(/^ {2}plan /m);
    await stopEmbeddedServer(setup.home, { force: true });
    const { status, stderr } = await command.ended;
    expect(status, stderr).toBe(1);
    expect(stderr).toContain('[temporal.unreachable]');
    expect(stderr).toContain('Run this command again, or `weldline resume`');
    const again = await weldline(setup, 'release', recipe);
    expect(again.status, again.stderr).toBe(0);
    expect(processesOf(setup)).toEqual([]);
  });

  it('goes on after a power cut', async () => {
    const recipe = await writeRecipe(setup, { version: '4.0.0', merge: { dtype: 'float32' } });
    const command = await start(setup, 'release', recipe);
    await command.hasWritten(/^ {2}plan /m);
    command.signal('SIGKILL');
    expect((await command.ended).status).toBeNull();
    const resumed = await weldline(setup, 'resume', '--json');
    expect(resumed.status, resumed.stderr).toBe(0);
    const result = JSON.parse(resumed.stdout);
    expect(result).toMatchObject({ publications: [{ existed: false }] });
    const facts = await readFile(join(result.publications[0].location, 'release.json'), 'utf8');
    expect(JSON.parse(facts)).toMatchObject({ options: { dtype: 'float32' } });
    expect(processesOf(setup)).toEqual([]);
  });
});
