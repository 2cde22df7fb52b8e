import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { openOciPublisher } from '../../publishers/oci/oci-publisher.ts';
import { aliasTagOf, tagOf } from '../../publishers/oci/tags.ts';
import { artefactNameOf } from '../../publishers/publisher.ts';
import { type PublisherUnderTest, TEST_PATIENCE, testPublisher } from '../conformance/publisher.ts';
import { type FaultyProxy, startFaultyProxy } from '../harness/faulty-proxy.ts';
import {
  REGISTRY_PASSWORD,
  type RegistryServer,
  startRegistry,
  writeDockerConfig,
} from '../harness/registry-server.ts';

let registry: RegistryServer;
let proxy: FaultyProxy;
let dockerConfig: string;
let repositories = 0;

beforeAll(async () => {
  registry = await startRegistry({ hasPassword: true });
  proxy = await startFaultyProxy(registry.origin);
  dockerConfig = await mkdtemp(join(tmpdir(), 'weldline-docker-'));
  await writeDockerConfig(dockerConfig, [new URL(proxy.origin).host]);
});

afterAll(async () => {
  await proxy?.close();
  await registry?.close();
  await rm(dockerConfig, { recursive: true, force: true });
});

async function open(): Promise<PublisherUnderTest> {
  const path = `models/test-${repositories++}`;
  const target = { repository: `${new URL(proxy.origin).host}/${path}` };
  const reader = new TestReader(registry, path);
  return {
    publisher: openOciPublisher(target, dockerConfig, TEST_PATIENCE),
    read: (id) => reader.read(tagOf(artefactNameOf(id))),
    readAlias: (alias, part) => reader.read(aliasTagOf(alias, part)),
    everything: () => reader.tags(),
    proxy,
    child: { target: { oci: target }, env: { DOCKER_CONFIG: dockerConfig } },
    secrets: [REGISTRY_PASSWORD],
    cleanUp: async () => proxy.clear(),
  };
}

/** Reads tags as any client would, with nothing of weldline's. */
class TestReader {
  readonly #base: string;
  readonly #headers: Record<string, string>;

  constructor({ origin, authorization }: RegistryServer, path: string) {
    this.#base = `${origin}/v2/${path}`;
    this.#headers = {
      authorization,
      accept: 'application/vnd.oci.image.manifest.v1+json',
    };
  }

  async tags(): Promise<readonly string[]> {
    const response = await fetch(`${this.#base}/tags/list`, { headers: this.#headers });
    const { tags } = (await response.json()) as { tags?: string[] | null };
    return tags ?? [];
  }

  async read(tag: string): Promise<ReadonlyMap<string, Buffer> | undefined> {
    const answer = await fetch(`${this.#base}/manifests/${tag}`, { headers: this.#headers });
    if (answer.status === 404) return undefined;
    const { layers } = (await answer.json()) as {
      layers: { digest: string; annotations: Record<string, string> }[];
    };
    const files = layers.map(async ({ digest, annotations }) => {
      const blob = await fetch(`${this.#base}/blobs/${digest}`, { headers: this.#headers });
      const path = annotations['org.opencontainers.image.title'] ?? digest;
      return [path, Buffer.from(await blob.arrayBuffer())] as const;
    });
    return new Map(await Promise.all(files));
  }
}

testPublisher('a registry', open, { hasServer: true, prunes: true, aliasesRace: true });
