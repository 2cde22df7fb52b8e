/** A real Temporal server for the tests of one file. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import type { TemporalCli } from '../../tools/temporal-cli.ts';
import { acquireEmbeddedServer, stopEmbeddedServer } from '../../workers/embedded-server.ts';
import { testTemporalCli } from '../tools/test-temporal-cli.ts';

export interface TestServer {
  readonly address: string;
  readonly namespace: string;
  readonly client: Client;
  /** A directory for everything the file makes; goes away with the server. */
  readonly directory: string;
  stop(): Promise<void>;
}

/** @param settings of the server, by the names of its dynamic configuration */
export async function startTestServer(
  settings: Readonly<Record<string, number>> = {},
): Promise<TestServer> {
  const directory = await mkdtemp(join(tmpdir(), 'weldline-release-'));
  const home = join(directory, 'server-home');
  await mkdir(home);
  const cli = await withSettings(await testTemporalCli(), settings, join(directory, 'temporal'));
  const server = await acquireEmbeddedServer({ home, cli, ui: false });
  const { address, namespace } = server;
  const connection = await Connection.connect({ address });
  return {
    address,
    namespace,
    client: new Client({ connection, namespace }),
    directory,
    async stop() {
      await connection.close();
      await server.release();
      await stopEmbeddedServer(home, { force: true });
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** The same server, but for its limits: those of a user's are years away from a test. */
async function withSettings(
  cli: TemporalCli,
  settings: Readonly<Record<string, number>>,
  path: string,
): Promise<TemporalCli> {
  const flags = Object.entries(settings).flatMap(([name, value]) => [
    '--dynamic-config-value',
    `${name}=${value}`,
  ]);
  if (flags.length === 0) return cli;
  await writeFile(path, `#!/bin/sh\nexec '${cli.path}' "$@" ${flags.join(' ')}\n`, { mode: 0o755 });
  return { ...cli, path };
}
