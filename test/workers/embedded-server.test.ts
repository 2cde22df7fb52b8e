import { existsSync, rmSync } from 'node:fs';
import { readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { embeddedServerStatus, stopEmbeddedServer } from '../../workers/embedded-server.ts';
import { identityOf } from '../../workers/process-identity.ts';
import { SERVER_TIMEOUTS, ServerHome, signalled, withClient } from './server-home.ts';

vi.setConfig(SERVER_TIMEOUTS);

let home: ServerHome;
beforeEach(async () => {
  home = await ServerHome.create();
});
afterEach(async () => {
  await home.remove();
});

describe('acquireEmbeddedServer', () => {
  it('starts a server, and stops it with the last release', async () => {
    const server = await home.acquire({ ui: true });
    const status = await embeddedServerStatus(home.path);
    expect(status).toMatchObject({
      state: 'running',
      address: server.address,
      uiAddress: server.uiAddress,
      cliVersion: home.cli.version,
      leaseHolders: [process.pid],
    });
    expect(status.databaseBytes).toBeGreaterThan(0);
    const page = await fetch(`${server.uiAddress}/`);
    expect([page.status, await page.text()]).toEqual([200, expect.stringContaining('<html')]);

    await Promise.all([server.release(), server.release()]);
    expect(await embeddedServerStatus(home.path)).toMatchObject({
      state: 'stopped',
      leaseHolders: [],
    });
    expect(identityOf(status.pid ?? 0)).toBeUndefined();
    expect(await readdir(join(home.path, 'server'))).not.toContain('server.json');
    expect(home.leases()).toEqual([]);
  });

  it('has the search attributes, and keeps closed runs for a month', async () => {
    const { address, namespace } = await home.acquire();
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
    const first = await home.acquire();
    await withClient(first.address, (client) =>
      client.workflow.start('release', { taskQueue: 'none', workflowId: 'kept' }),
    );
    await first.release();
    const second = await home.acquire();
    expect(second.address).toBe(first.address);
    await withClient(second.address, async (client) => {
      expect((await client.workflow.getHandle('kept').describe()).status.name).toBe('RUNNING');
    });
  });

  it('is shared by processes, whichever way they reach the home; the last one stops it', async () => {
    const user = home.startUser();
    const { address } = await user.next();
    const pid = await home.serverPid();
    const link = `${home.path}-link`;
    await symlink(home.path, link);
    const server = await home.acquire({ home: link });
    rmSync(link);
    expect(server.address).toBe(address);
    expect((await embeddedServerStatus(home.path)).leaseHolders).toHaveLength(2);

    await user.release();
    expect(await home.serverPid()).toBe(pid);
    await server.release();
    expect(home.serverProcesses()).toEqual([]);
  });

  it('starts one server for processes that ask at the same time', async () => {
    const started = [home.startUser(), home.startUser(), home.startUser()];
    const mine = home.acquire();
    const events = await Promise.all(started.map((user) => user.next()));
    const { address } = await mine;
    expect(events.map((event) => event.address)).toEqual([address, address, address]);
    expect(home.serverProcesses()).toEqual([await home.serverPid()]);
    expect((await embeddedServerStatus(home.path)).leaseHolders).toHaveLength(4);

    await Promise.all(started.map((user) => user.release()));
    expect(home.serverProcesses()).toHaveLength(1);
  });

  it('reuses the server that a killed process left, and does not count that process', async () => {
    const user = home.startUser();
    const { address } = await user.next();
    const pid = await home.serverPid();
    await user.kill();
    expect(await embeddedServerStatus(home.path)).toMatchObject({
      state: 'running',
      leaseHolders: [],
    });

    const server = await home.acquire();
    expect([server.address, await home.serverPid()]).toEqual([address, pid]);
    await server.release();
    expect(home.serverProcesses()).toEqual([]);
    expect(home.leases()).toEqual([]);
  });
});

describe('a server that cannot start', () => {
  it('says that its database is damaged, and leaves nothing behind', async () => {
    await (await home.acquire()).release();
    await writeFile(join(home.path, 'server', 'temporal.db'), 'no database at all'.repeat(1000));
    await expect(home.acquire()).rejects.toMatchObject({
      code: 'temporal.start-failed',
      message: expect.stringMatching(/temporal\.db is damaged\. Move it away[\s\S]*not a database/),
    });
    expect(home.leases()).toEqual([]);
    expect(await embeddedServerStatus(home.path)).toMatchObject({ state: 'stopped' });
  });

  it('says that its directory cannot be made', async () => {
    await writeFile(join(home.path, 'file'), '');
    await expect(home.acquire({ home: join(home.path, 'file') })).rejects.toMatchObject({
      code: 'temporal.start-failed',
      message: expect.stringContaining('set WELDLINE_HOME to another place'),
    });
  });

  it('stops when it is cancelled', async () => {
    const reason = new Error('enough');
    const controller = new AbortController();
    const acquiring = home.acquire({ signal: controller.signal });
    const watch = setInterval(() => {
      if (existsSync(join(home.path, 'server', 'server.json'))) controller.abort(reason);
    }, 5);
    await expect(acquiring).rejects.toBe(reason);
    clearInterval(watch);
    expect(home.serverProcesses()).toEqual([]);
    expect(home.leases()).toEqual([]);
  });
});

describe('stopEmbeddedServer', () => {
  it('does nothing, and creates nothing, where none ran', async () => {
    expect(await stopEmbeddedServer(home.path)).toEqual({ stopped: false, leaseHolders: [] });
    expect(await embeddedServerStatus(join(home.path, 'none'))).toMatchObject({ state: 'stopped' });
    expect(await readdir(home.path)).toEqual([]);
  });

  it('leaves a server in use alone unless forced; its users hear that it is lost', async () => {
    const [lost, onLost] = signalled<unknown>();
    await home.acquire({ onLost });
    const refused = { stopped: false, leaseHolders: [process.pid] };
    expect(await stopEmbeddedServer(home.path)).toEqual(refused);
    expect(await embeddedServerStatus(home.path)).toMatchObject({ state: 'running' });

    expect(await stopEmbeddedServer(home.path, { force: true })).toEqual({
      ...refused,
      stopped: true,
    });
    expect(await lost).toMatchObject({ code: 'temporal.unreachable' });
    expect(home.serverProcesses()).toEqual([]);
  });

  it('stops one that a killed process left', async () => {
    const user = home.startUser();
    await user.next();
    await user.kill();
    expect(await stopEmbeddedServer(home.path)).toEqual({ stopped: true, leaseHolders: [] });
  });
});
