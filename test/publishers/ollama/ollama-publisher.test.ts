import { afterAll, beforeAll } from 'vitest';
import { tagOf } from '../../../publishers/ollama/ollama-names.ts';
import { OllamaPublisher } from '../../../publishers/ollama/ollama-publisher.ts';
import { TEST_PATIENCE, testPublisher } from '../../conformance/publisher.ts';
import { type FaultyProxy, startFaultyProxy } from '../../harness/faulty-proxy.ts';
import { type OllamaServer, startOllamaServer } from '../../harness/ollama-server.ts';
import { weightsOf } from '../../harness/test-artefact.ts';

const CANARY = 'canary-5f1e';
const isWeights = (path: string): boolean => path === weightsOf('gguf');

let server: OllamaServer;
let proxy: FaultyProxy;
beforeAll(async () => {
  server = await startOllamaServer();
  proxy = await startFaultyProxy(server.origin);
});
afterAll(async () => {
  await proxy.close();
  await server.close();
});

async function open() {
  server.clear();
  proxy.clear();
  const withSecret = proxy.origin.replace('//', `//someone:${CANARY}@`);
  const target = { model: 'team/support', endpoint: withSecret };
  const seen = (tag: string) => {
    const weights = server.weightsOf(`team/support:${tag}`);
    return weights && new Map([[weightsOf('gguf'), weights]]);
  };
  return {
    publisher: new OllamaPublisher(target, TEST_PATIENCE),
    read: async ({ release, part }: { release: string; part?: string }) =>
      seen(tagOf(release, part)),
    readAlias: async (alias: string, part?: string) => seen(tagOf(alias, part)),
    everything: async () => [...server.models.keys()],
    proxy,
    child: {
      target: { ollama: { model: 'team/support', endpoint: server.origin } },
      env: {},
    },
    secrets: [CANARY],
    cleanUp: async () => undefined,
  };
}

testPublisher('Ollama', open, {
  only: 'gguf',
  shows: isWeights,
  aliasesRace: true,
  hasServer: true,
});
