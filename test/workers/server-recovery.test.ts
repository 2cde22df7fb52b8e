import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, rmSync, statSync, truncateSync } from 'node:fs';
import { readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { embeddedServerStatus, stopEmbeddedServer } from '../../workers/embedded-server.ts';
import { SERVER_TIMEOUTS, ServerHome, signalled, withClient } from './server-home.ts';

vi.setConfig(SERVER_TIMEOUTS);

let home: ServerHome;
beforeEach(async () => {
  home = await ServerHome.create();
});
afterEach(async () => {
  await home.remove();
});

describe('a process that is killed while it starts the server', () => {
  it('leaves one that the next process finds', async () => {
    const user = home.startUser();
    const path = join(home.path, 'server', 'server.json');
    await expect.poll(() => existsSync(path), { timeout: 30_000, interval: 1 }).toBe(true);
    await user.kill();
    const { pid } = JSON.parse(await readFile(path, 'utf8'));
    await home.acquire();
    expect(await home.serverPid()).toBe(pid);
    expect(home.serverProcesses()).toEqual([pid]);
  });
});

describe('a server that is killed', () => {
  it('comes back once, on its address with its histories, and all users hear of it', async () => {
    const user = home.startUser();
    const [restarted, onRestart] = signalled<{ pid: number }>();
    const server = await home.acquire({ onRestart });
    expect(await user.next()).toEqual({ address: server.address });
    await withClient(server.address, (client) =>
      client.workflow.start('release', { taskQueue: 'none', workflowId: 'kept' }),
    );
    const before = await home.serverPid();
    process.kill(before, 'SIGKILL');

    const { pid } = await restarted;
    expect(pid).not.toBe(before);
    expect(await user.next()).toEqual({ restarted: pid });
    expect(home.serverProcesses()).toEqual([pid]);
    expect((await embeddedServerStatus(home.path)).address).toBe(server.address);
    await withClient(server.address, async (client) => {
      expect((await client.workflow.getHandle('kept').describe()).status.name).toBe('RUNNING');
    });
  });

  it('is started anew when nobody was there to bring it back', async () => {
    const user = home.startUser();
    const { address } = await user.next();
    const pid = await home.serverPid();
    await user.kill();
    process.kill(pid, 'SIGKILL');
    expect((await home.acquire()).address).toBe(address);
    expect(await home.serverPid()).not.toBe(pid);
  });

  it('is reported lost when it cannot be brought back', async () => {
    const [lost, onLost] = signalled<unknown>();
    const path = join(home.path, 'temporal');
    await symlink(home.cli.path, path);
    await home.acquire({ cli: { ...home.cli, path }, onLost });
    rmSync(path);
    process.kill(await home.serverPid(), 'SIGKILL');
    expect(await lost).toMatchObject({
      code: 'temporal.start-failed',
      message: expect.stringContaining('did not start: exit code 127'),
    });
  });
});

describe('what others left', () => {
  it('takes another port when its own is in use, and keeps that one', async () => {
    const first = await home.acquire();
    await first.release();
    const thief = createServer().listen(Number(first.address.split(':')[1]), '127.0.0.1');
    const second = await home.acquire();
    expect(second.address).not.toBe(first.address);
    await second.release();
    await new Promise((settle) => thief.close(settle));
    expect((await home.acquire()).address).toBe(second.address);
  });

  it('is not taken in by a process that was given the id of a dead server', async () => {
    const server = await home.acquire();
    const path = join(home.path, 'server', 'server.json');
    const state = JSON.parse(await readFile(path, 'utf8'));
    await server.release();
    await writeFile(path, JSON.stringify({ ...state, pid: process.pid }));
    expect(await embeddedServerStatus(home.path)).toMatchObject({ state: 'stopped' });
    expect(await stopEmbeddedServer(home.path)).toEqual({ stopped: false, leaseHolders: [] });
    await writeFile(path, JSON.stringify({ ...state, pid: process.pid }));
    expect((await home.acquire()).address).toBe(server.address);
    expect(await home.serverPid()).not.toBe(process.pid);
  });

  it('ignores files cut off by a power failure', async () => {
    await (await home.acquire()).release();
    const directory = join(home.path, 'server');
    await writeFile(join(directory, 'server.json'), '');
    await writeFile(join(directory, 'ports.json'), '{"port":');
    await writeFile(join(directory, 'lock'), '');
    await writeFile(join(directory, 'leases', '1-00000000'), '');
    await home.acquire();
    expect(await embeddedServerStatus(home.path)).toMatchObject({
      state: 'running',
      leaseHolders: [process.pid],
    });
  });
});

describe('on a full disk', () => {
  let filler: string;
  beforeEach(() => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'weldline-test', home.path]);
    filler = join(home.path, 'filler');
  });
  afterEach(async () => {
    rmSync(filler, { force: true });
    await stopEmbeddedServer(home.path, { force: true });
    execFileSync('umount', ['--lazy', home.path]);
  });

  /** Leaves no room for a single page, or some. */
  function fill(path: string, bytesLeft = 0): void {
    const page = Buffer.alloc(4096);
    try {
      for (;;) appendFileSync(path, page);
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOSPC' });
    }
    truncateSync(path, statSync(path).size - bytesLeft);
  }

  it('no database is begun that would not fit', async () => {
    fill(filler, 256 * 1024);
    await expect(home.acquire()).rejects.toMatchObject({
      code: 'disk.full',
      message: expect.stringContaining('the database of the embedded Temporal server'),
    });
    rmSync(filler);
    await (await home.acquire()).release();
  });

  it('a process ends in order, and takes its server with it', async () => {
    const server = await home.acquire();
    fill(filler);
    await server.release();
    expect(home.leases()).toEqual([]);
    expect(home.serverProcesses()).toEqual([]);
    rmSync(filler);
    const next = await home.acquire();
    expect(next.address).toBe(server.address);
    await next.release();
  });
});

it('a database whose first server fails while it makes it is begun again', async () => {
  const failing = join(home.path, 'failing-temporal');
  const script =
    '#!/bin/sh\nfor each; do [ "$before" = --db-filename ] && printf half > "$each"; before=$each; done\n' +
    'exit 1\n';
  await writeFile(failing, script, { mode: 0o755 });
  const cli = { ...home.cli, path: failing };
  await expect(home.acquire({ cli })).rejects.toMatchObject({ code: 'temporal.start-failed' });
  expect(await readdir(join(home.path, 'server'))).not.toContain('temporal.db');
  await home.acquire();
});
