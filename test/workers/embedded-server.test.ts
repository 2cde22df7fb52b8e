import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { TemporalCli } from '../../tools/temporal-cli.ts';
import {
  acquireEmbeddedServer,
  type EmbeddedServer,
  type EmbeddedServerOptions,
  embeddedServerStatus,
  stopEmbeddedServer,
} from '../../workers/embedded-server.ts';
import { commandLineOf, identityOf } from '../../workers/process-identity.ts';
import { testTemporalCli } from '../tools/test-temporal-cli.ts';
import { ServerUser } from './server-user-process.ts';

let cli: TemporalCli;
let home: string;
let users: ServerUser[];
let servers: EmbeddedServer[];

beforeAll(async () => {
  cli = await testTemporalCli();
});
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'weldline-server-'));
  users = [];
  servers = [];
});
afterEach(async () => {
  await Promise.all(users.map((user) => user.kill()));
  await Promise.all(servers.map((server) => server.release()));
  await stopEmbeddedServer(home, { force: true });
  await rm(home, { recursive: true });
});

async function acquire(options: Partial<EmbeddedServerOptions> = {}): Promise<EmbeddedServer> {
  const server = await acquireEmbeddedServer({ home, cli, ui: false, ...options });
  servers.push(server);
  return server;
}

function startUser(): ServerUser {
  const user = new ServerUser(home, cli);
  users.push(user);
  return user;
}

async function serverPid(): Promise<number> {
  const { pid } = await embeddedServerStatus(home);
  if (pid === undefined) throw new Error('no server runs');
  return pid;
}

/** Every server process of this home, recorded or not. */
function serverProcesses(): number[] {
  const pids = existsSync('/proc/self')
    ? readdirSync('/proc')
    : execFileSync('ps', ['-axo', 'pid='], { encoding: 'utf8' }).split('\n');
  return pids
    .map(Number)
    .filter((pid) => pid > 0 && commandLineOf(pid).includes(`${home}/server/temporal.db`));
}

function leases(): string[] {
  return readdirSync(join(home, 'server', 'leases'));
}

async function withClient<T>(address: string, use: (client: Client) => Promise<T>): Promise<T> {
  const connection = await Connection.connect({ address });
  try {
    return await use(new Client({ connection }));
  } finally {
    await connection.close();
  }
}

/** Settled by whoever calls its second element. */
function signalled<T>(): [promise: Promise<T>, settle: (value: T) => void] {
  let settle: (value: T) => void = () => undefined;
  const promise = new Promise<T>((resolve) => {
    settle = resolve;
  });
  return [promise, settle];
}

/** A start and a stop take three seconds; a busy machine may need many times that. */
vi.setConfig({ testTimeout: 180_000, hookTimeout: 300_000 });

describe('acquireEmbeddedServer', () => {
  it('starts a server, and stops it with the last release', async () => {
    const server = await acquire({ ui: true });
    const status = await embeddedServerStatus(home);
    expect(status).toMatchObject({
      state: 'running',
      address: server.address,
      uiAddress: server.uiAddress,
      cliVersion: cli.version,
      leaseHolders: [process.pid],
    });
    expect(status.databaseBytes).toBeGreaterThan(0);
    const page = await fetch(`${server.uiAddress}/`);
    expect([page.status, await page.text()]).toEqual([200, expect.stringContaining('<html')]);

    await Promise.all([server.release(), server.release()]);
    expect(await embeddedServerStatus(home)).toMatchObject({ state: 'stopped', leaseHolders: [] });
    expect(identityOf(status.pid ?? 0)).toBeUndefined();
    expect(await readdir(join(home, 'server'))).not.toContain('server.json');
    expect(leases()).toEqual([]);
  });

  it('has the search attributes, and keeps closed runs for a month', async () => {
    const { address, namespace } = await acquire();
    await withClient(address, async ({ connection }) => {
      const { config } = await connection.workflowService.describeNamespace({ namespace });
      expect(Number(config?.workflowExecutionRetentionTtl?.seconds)).toBe(30 * 24 * 3600);
    });
    await withClient(address, async (client) => {
      const query = 'WeldlineRelease = "a" AND WeldlineAdapters IN ("b") AND WeldlineStage = "c"';
      expect((await client.workflow.count(query)).count).toBe(0);
    });
  });

  it('keeps address and histories from one run to the next', async () => {
    const first = await acquire();
    await withClient(first.address, (client) =>
      client.workflow.start('release', { taskQueue: 'none', workflowId: 'kept' }),
    );
    await first.release();
    const second = await acquire();
    expect(second.address).toBe(first.address);
    await withClient(second.address, async (client) => {
      expect((await client.workflow.getHandle('kept').describe()).status.name).toBe('RUNNING');
    });
  });

  it('is shared by processes, whichever way they reach the home; the last one stops it', async () => {
    const user = startUser();
    const { address } = await user.next();
    const pid = await serverPid();
    const link = `${home}-link`;
    await symlink(home, link);
    const server = await acquire({ home: link });
    rmSync(link);
    expect(server.address).toBe(address);
    expect((await embeddedServerStatus(home)).leaseHolders).toHaveLength(2);

    await user.release();
    expect(await serverPid()).toBe(pid);
    await server.release();
    expect(serverProcesses()).toEqual([]);
  });

  it('starts one server for processes that ask at the same time', async () => {
    const started = [startUser(), startUser(), startUser()];
    const mine = acquire();
    const events = await Promise.all(started.map((user) => user.next()));
    const { address } = await mine;
    expect(events.map((event) => event.address)).toEqual([address, address, address]);
    expect(serverProcesses()).toEqual([await serverPid()]);
    expect((await embeddedServerStatus(home)).leaseHolders).toHaveLength(4);

    await Promise.all(started.map((user) => user.release()));
    expect(serverProcesses()).toHaveLength(1);
  });

  it('reuses the server that a killed process left, and does not count that process', async () => {
    const user = startUser();
    const { address } = await user.next();
    const pid = await serverPid();
    await user.kill();
    expect(await embeddedServerStatus(home)).toMatchObject({ state: 'running', leaseHolders: [] });

    const server = await acquire();
    expect([server.address, await serverPid()]).toEqual([address, pid]);
    await server.release();
    expect(serverProcesses()).toEqual([]);
    expect(leases()).toEqual([]);
  });
});

describe('a process that is killed while it starts the server', () => {
  it('leaves one that the next process finds', async () => {
    const user = startUser();
    const path = join(home, 'server', 'server.json');
    await expect.poll(() => existsSync(path), { timeout: 30_000, interval: 1 }).toBe(true);
    await user.kill();
    const { pid } = JSON.parse(await readFile(path, 'utf8'));
    await acquire();
    expect(await serverPid()).toBe(pid);
    expect(serverProcesses()).toEqual([pid]);
  });
});

describe('a server that is killed', () => {
  it('comes back once, on its address with its histories, and all users hear of it', async () => {
    const user = startUser();
    const [restarted, onRestart] = signalled<{ pid: number }>();
    const server = await acquire({ onRestart });
    expect(await user.next()).toEqual({ address: server.address });
    await withClient(server.address, (client) =>
      client.workflow.start('release', { taskQueue: 'none', workflowId: 'kept' }),
    );
    const before = await serverPid();
    process.kill(before, 'SIGKILL');

    const { pid } = await restarted;
    expect(pid).not.toBe(before);
    expect(await user.next()).toEqual({ restarted: pid });
    expect(serverProcesses()).toEqual([pid]);
    expect((await embeddedServerStatus(home)).address).toBe(server.address);
    await withClient(server.address, async (client) => {
      expect((await client.workflow.getHandle('kept').describe()).status.name).toBe('RUNNING');
    });
  });

  it('is started anew when nobody was there to bring it back', async () => {
    const user = startUser();
    const { address } = await user.next();
    const pid = await serverPid();
    await user.kill();
    process.kill(pid, 'SIGKILL');
    expect((await acquire()).address).toBe(address);
    expect(await serverPid()).not.toBe(pid);
  });

  it('is reported lost when it cannot be brought back', async () => {
    const [lost, onLost] = signalled<unknown>();
    const path = join(home, 'temporal');
    await symlink(cli.path, path);
    await acquire({ cli: { ...cli, path }, onLost });
    rmSync(path);
    process.kill(await serverPid(), 'SIGKILL');
    expect(await lost).toMatchObject({
      code: 'temporal.start-failed',
      message: expect.stringContaining('did not start: exit code 127'),
    });
  });
});

describe('a server that cannot start', () => {
  it('says that its database is damaged, and leaves nothing behind', async () => {
    await (await acquire()).release();
    await writeFile(join(home, 'server', 'temporal.db'), 'no database at all'.repeat(1000));
    await expect(acquire()).rejects.toMatchObject({
      code: 'temporal.start-failed',
      message: expect.stringMatching(/temporal\.db is damaged\. Move it away[\s\S]*not a database/),
    });
    expect(leases()).toEqual([]);
    expect(await embeddedServerStatus(home)).toMatchObject({ state: 'stopped' });
  });

  it('says that its directory cannot be made', async () => {
    await writeFile(join(home, 'file'), '');
    await expect(acquire({ home: join(home, 'file') })).rejects.toMatchObject({
      code: 'temporal.start-failed',
      message: expect.stringContaining('set WELDLINE_HOME to another place'),
    });
  });

  it('stops when it is cancelled', async () => {
    const reason = new Error('enough');
    const controller = new AbortController();
    const acquiring = acquire({ signal: controller.signal });
    const watch = setInterval(() => {
      if (existsSync(join(home, 'server', 'server.json'))) controller.abort(reason);
    }, 5);
    await expect(acquiring).rejects.toBe(reason);
    clearInterval(watch);
    expect(serverProcesses()).toEqual([]);
    expect(leases()).toEqual([]);
  });
});

describe('what others left', () => {
  it('takes another port when its own is in use, and keeps that one', async () => {
    const first = await acquire();
    await first.release();
    const thief = createServer().listen(Number(first.address.split(':')[1]), '127.0.0.1');
    const second = await acquire();
    expect(second.address).not.toBe(first.address);
    await second.release();
    await new Promise((settle) => thief.close(settle));
    expect((await acquire()).address).toBe(second.address);
  });

  it('is not taken in by a process that was given the id of a dead server', async () => {
    const { address } = await acquire();
    const path = join(home, 'server', 'server.json');
    const state = JSON.parse(await readFile(path, 'utf8'));
    await servers[0]?.release();
    await writeFile(path, JSON.stringify({ ...state, pid: process.pid }));
    expect(await embeddedServerStatus(home)).toMatchObject({ state: 'stopped' });
    expect(await stopEmbeddedServer(home)).toEqual({ stopped: false, leaseHolders: [] });
    await writeFile(path, JSON.stringify({ ...state, pid: process.pid }));
    expect((await acquire()).address).toBe(address);
    expect(await serverPid()).not.toBe(process.pid);
  });

  it('ignores files cut off by a power failure', async () => {
    await acquire();
    await servers[0]?.release();
    const directory = join(home, 'server');
    await writeFile(join(directory, 'server.json'), '');
    await writeFile(join(directory, 'ports.json'), '{"port":');
    await writeFile(join(directory, 'lock'), '');
    await writeFile(join(directory, 'leases', '1-00000000'), '');
    await acquire();
    expect(await embeddedServerStatus(home)).toMatchObject({
      state: 'running',
      leaseHolders: [process.pid],
    });
  });
});

describe('stopEmbeddedServer', () => {
  it('does nothing, and creates nothing, where none ran', async () => {
    expect(await stopEmbeddedServer(home)).toEqual({ stopped: false, leaseHolders: [] });
    expect(await embeddedServerStatus(join(home, 'none'))).toMatchObject({ state: 'stopped' });
    expect(await readdir(home)).toEqual([]);
  });

  it('leaves a server in use alone unless forced; its users hear that it is lost', async () => {
    const [lost, onLost] = signalled<unknown>();
    await acquire({ onLost });
    const refused = { stopped: false, leaseHolders: [process.pid] };
    expect(await stopEmbeddedServer(home)).toEqual(refused);
    expect(await embeddedServerStatus(home)).toMatchObject({ state: 'running' });

    expect(await stopEmbeddedServer(home, { force: true })).toEqual({ ...refused, stopped: true });
    expect(await lost).toMatchObject({ code: 'temporal.unreachable' });
    expect(serverProcesses()).toEqual([]);
  });

  it('stops one that a killed process left', async () => {
    const user = startUser();
    await user.next();
    await user.kill();
    expect(await stopEmbeddedServer(home)).toEqual({ stopped: true, leaseHolders: [] });
  });
});
