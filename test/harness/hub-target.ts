import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { downloadFile, listFiles } from '@huggingface/hub';
import { Secret } from '../../config/secret.ts';
import { HubPublisher, type HubTarget } from '../../publishers/hub/hub-publisher.ts';
import type { Patience } from '../../remote/patience.ts';
import { TEST_PATIENCE } from '../conformance/publisher.ts';
import { type HubServer, type HubServerOptions, startHubServer } from '../hub-server/hub-server.ts';
import { type FaultyProxy, startFaultyProxy } from './faulty-proxy.ts';

export const WRITER = 'hf_canary_of_the_writer';
export const READER = 'hf_canary_of_the_reader';

/** A hub to publish to, a proxy before it, and the hub's own client behind the proxy. */
export interface HubUnderTest {
  readonly server: HubServer;
  readonly proxy: FaultyProxy;
  publisher(target: HubTarget, token?: string, patience?: Patience): HubPublisher;
  /** Files at a revision as `@huggingface/hub` finds them, less `.gitattributes`. */
  filesAt(repo: string, revision: string): Promise<Map<string, Buffer> | undefined>;
  /** JSON of the hub's API. */
  get(path: string): Promise<unknown>;
  close(): Promise<void>;
}

export async function startHubUnderTest(
  options: Partial<HubServerOptions> = {},
): Promise<HubUnderTest> {
  const root = await mkdtemp(join(tmpdir(), 'weldline-hub-'));
  const accounts = {
    [WRITER]: { name: 'writer', role: 'write', orgs: ['acme'] },
    [READER]: { name: 'reader', role: 'read', orgs: ['acme'] },
  } as const;
  const server = await startHubServer({ root, accounts, uploadsAtHub: true, ...options });
  const proxy = await startFaultyProxy(server.endpoint);
  return {
    server,
    proxy,
    publisher: (target, token = WRITER, patience = TEST_PATIENCE) =>
      new HubPublisher(target, {
        endpoint: proxy.origin,
        token: token === '' ? undefined : new Secret(token),
        patience,
      }),
    filesAt: (repo, revision) => filesAt(server.endpoint, repo, revision),
    async get(path) {
      const headers = { authorization: `Bearer ${WRITER}` };
      return (await fetch(`${server.endpoint}${path}`, { headers })).json();
    },
    async close() {
      await proxy.close();
      await server.close();
      await rm(root, { recursive: true });
    },
  };
}

async function filesAt(
  hubUrl: string,
  repo: string,
  revision: string,
): Promise<Map<string, Buffer> | undefined> {
  const access = { repo, revision, hubUrl, accessToken: WRITER };
  const files = new Map<string, Buffer>();
  try {
    for await (const { type, path } of listFiles({ ...access, recursive: true })) {
      if (type !== 'file' || path === '.gitattributes') continue;
      const blob = await downloadFile({ ...access, path });
      files.set(path, Buffer.from(await blob!.arrayBuffer()));
    }
  } catch (error) {
    if ((error as { statusCode?: number }).statusCode === 404) return undefined;
    throw error;
  }
  return files;
}
