import { afterAll, beforeAll } from 'vitest';
import { artefactNameOf } from '../../publishers/publisher.ts';
import { parseReleaseRecord } from '../../publishers/release-record.ts';
import { type PublisherUnderTest, testPublisher } from '../conformance/publisher.ts';
import { type HubUnderTest, startHubUnderTest, WRITER } from '../harness/hub-target.ts';

let hub: HubUnderTest;
let repositories = 0;

beforeAll(async () => {
  hub = await startHubUnderTest();
});

afterAll(() => hub.close());

testPublisher('the hub', openHub, { hasServer: true });

async function openHub(): Promise<PublisherUnderTest> {
  const base = `acme/support${repositories++}x`;
  const repoOf = (part: string | undefined) => (part === undefined ? base : `${base}-${part}`);
  hub.proxy.clear();
  return {
    publisher: hub.publisher({ repo: base, private: true }),
    read: ({ release, part }) => hub.filesAt(repoOf(part), release),
    readAlias: (alias, part) => hub.filesAt(repoOf(part), alias),
    everything: () => everythingOf(base),
    proxy: hub.proxy,
    child: {
      target: { hub: { repo: base } },
      env: { HF_ENDPOINT: hub.proxy.origin, HF_TOKEN: WRITER },
    },
    secrets: [WRITER, 'signature='],
    cleanUp: async () => undefined,
  };
}

/** Tags, and what is on `main` without one. */
async function everythingOf(base: string): Promise<string[]> {
  const models = (await hub.get(`/api/models?search=${base}`)) as { id: string }[];
  const names = new Set<string>();
  for (const { id } of models) {
    const { tags } = (await hub.get(`/api/models/${id}/refs`)) as { tags: { name: string }[] };
    for (const { name } of tags) names.add(`${id}@${name}`);
    const release = (await hub.filesAt(id, 'main'))?.get('release.json');
    const record = release && parseReleaseRecord(String(release));
    if (record) names.add(`${id}@${artefactNameOf({ release: record.release })}`);
  }
  return [...names];
}
