/** A real Temporal server for the tests of one file. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
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

export async function startTestServer(): Promise<TestServer> {
  const directory = await mkdtemp(join(tmpdir(), 'weldline-release-'));
  const home = join(directory, 'server-home');
  await mkdir(home);
  const server = await acquireEmbeddedServer({ home, cli: await testTemporalCli(), ui: false });
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
