import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import type { TemporalCli } from '../../tools/temporal-cli.ts';
import {
  acquireEmbeddedServer,
  type EmbeddedServer,
  type EmbeddedServerOptions,
  embeddedServerStatus,
  stopEmbeddedServer,
} from '../../workers/embedded-server.ts';
import { commandLineOf } from '../../workers/process-identity.ts';
import { testTemporalCli } from '../tools/test-temporal-cli.ts';
import { ServerUser } from './server-user-process.ts';

/** A start and a stop take three seconds; a busy machine may need many times that. */
export const SERVER_TIMEOUTS = { testTimeout: 180_000, hookTimeout: 300_000 };

/** A home of its own for one test, with everything that was started in it. */
export class ServerHome {
  readonly path: string;
  readonly cli: TemporalCli;
  readonly #users: ServerUser[] = [];
  readonly #servers: EmbeddedServer[] = [];

  private constructor(path: string, cli: TemporalCli) {
    this.path = path;
    this.cli = cli;
  }

  static async create(): Promise<ServerHome> {
    const cli = await testTemporalCli();
    return new ServerHome(await mkdtemp(join(tmpdir(), 'weldline-server-')), cli);
  }

  /** Ends whatever the test left. */
  async remove(): Promise<void> {
    await Promise.all(this.#users.map((user) => user.kill()));
    await Promise.all(this.#servers.map((server) => server.release()));
    await stopEmbeddedServer(this.path, { force: true });
    await rm(this.path, { recursive: true });
  }

  async acquire(options: Partial<EmbeddedServerOptions> = {}): Promise<EmbeddedServer> {
    const defaults = { home: this.path, cli: this.cli, ui: false };
    const server = await acquireEmbeddedServer({ ...defaults, ...options });
    this.#servers.push(server);
    return server;
  }

  startUser(): ServerUser {
    const user = new ServerUser(this.path, this.cli);
    this.#users.push(user);
    return user;
  }

  async serverPid(): Promise<number> {
    const { pid } = await embeddedServerStatus(this.path);
    if (pid === undefined) throw new Error('no server runs');
    return pid;
  }

  /** Every server process of this home, recorded or not. */
  serverProcesses(): number[] {
    const pids = existsSync('/proc/self')
      ? readdirSync('/proc')
      : execFileSync('ps', ['-axo', 'pid='], { encoding: 'utf8' }).split('\n');
    const database = join(this.path, 'server', 'temporal.db');
    return pids.map(Number).filter((pid) => pid > 0 && commandLineOf(pid).includes(database));
  }

  leases(): string[] {
    return readdirSync(join(this.path, 'server', 'leases'));
  }
}

export async function withClient<T>(
  address: string,
  use: (client: Client) => Promise<T>,
): Promise<T> {
  const connection = await Connection.connect({ address });
  try {
    return await use(new Client({ connection }));
  } finally {
    await connection.close();
  }
}

/** A promise and the function that settles it. */
export function signalled<T>(): [promise: Promise<T>, settle: (value: T) => void] {
  let settle: (value: T) => void = () => undefined;
  const promise = new Promise<T>((resolve) => {
    settle = resolve;
  });
  return [promise, settle];
}
