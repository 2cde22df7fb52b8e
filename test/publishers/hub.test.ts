import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { downloadFile, listFiles } from '@huggingface/hub';
import { afterAll, beforeAll } from 'vitest';
import { Secret } from '../../config/secret.ts';
import { HubPublisher } from '../../publishers/hub/hub-publisher.ts';
import { type ArtefactId, artefactNameOf } from '../../publishers/publisher.ts';
import { parseReleaseRecord } from '../../publishers/release-record.ts';
import { type PublisherUnderTest, TEST_PATIENCE, testPublisher } from '../conformance/publisher.ts';
import { type FaultyProxy, startFaultyProxy } from '../harness/faulty-proxy.ts';
import { type HubServer, startHubServer } from '../hub-server/hub-server.ts';

const TOKEN = 'hf_canary_of_the_writer';

let root: string;
let server: HubServer;
let proxy: FaultyProxy;
let repositories = 0;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'weldline-hub-'));
  const accounts = { [TOKEN]: { name: 'writer', role: 'write', orgs: ['acme'] } } as const;
  server = await startHubServer({ root, accounts, uploadsAtHub: true });
  proxy = await startFaultyProxy(server.endpoint);
});

afterAll(async () => {
  await proxy.close();
  await server.close();
  await rm(root, { recursive: true });
});

testPublisher('the hub', openHub, { hasServer: true });

async function openHub(): Promise<PublisherUnderTest> {
  const base = `acme/support${repositories++}x`;
  proxy.clear();
  const repoOf = ({ part }: { part?: string | undefined }) => (part ? `${base}-${part}` : base);
  const read = (repo: string, revision: string) => filesAt(repo, revision);
  return {
    publisher: new HubPublisher(
      { repo: base, private: true },
      { endpoint: proxy.origin, token: new Secret(TOKEN), patience: TEST_PATIENCE },
    ),
    read: (id: ArtefactId) => read(repoOf(id), id.release),
    readAlias: (alias, part) => read(repoOf({ part }), alias),
    everything: () => everythingOf(base),
    proxy,
    child: {
      target: { hub: { repo: base } },
      env: { HF_ENDPOINT: proxy.origin, HF_TOKEN: TOKEN },
    },
    secrets: [TOKEN, 'signature='],
    cleanUp: async () => undefined,
  };
}

/** What the hub's own client finds at a revision. */
async function filesAt(repo: string, revision: string): Promise<Map<string, Buffer> | undefined> {
  const access = { repo, revision, hubUrl: server.endpoint, accessToken: TOKEN };
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

/** Tags, and what is on `main` without one. */
async function everythingOf(base: string): Promise<string[]> {
  const headers = { authorization: `Bearer ${TOKEN}` };
  const get = async (path: string) =>
    (await fetch(`${server.endpoint}${path}`, { headers })).json();
  const models = (await get(`/api/models?search=${base}`)) as { id: string }[];
  const names = new Set<string>();
  for (const { id } of models) {
    const { tags } = (await get(`/api/models/${id}/refs`)) as { tags: { name: string }[] };
    for (const { name } of tags) names.add(`${id}@${name}`);
    const release = (await filesAt(id, 'main'))?.get('release.json');
    const record = release && parseReleaseRecord(String(release));
    if (record) names.add(`${id}@${artefactNameOf({ release: record.release })}`);
  }
  return [...names];
}
