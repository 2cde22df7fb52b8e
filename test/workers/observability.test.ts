/** What a worker tells of its work: metrics, traces and logs of one release, held against its facts. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readEnvironment } from '../../config/environment.ts';
import { findFreePort } from '../../workers/free-port.ts';
import { createLogger } from '../../workers/logger.ts';
import { releaseLogPath } from '../../workers/release-logs.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { startTracing, type Tracing } from '../../workers/tracing.ts';
import { loadWorkflowBundle } from '../../workers/workflow-bundle.ts';
import { type ReleaseResult, resumeSignal } from '../../workflows/messages.ts';
import { type OpenAiServer, startOpenAiServer } from '../harness/openai-server.ts';
import { type OtlpReceiver, startOtlpReceiver } from '../harness/otlp-receiver.ts';
import { EXAMPLE, exampleSuite, qualityRecipe, setUpQuality } from '../harness/quality-setup.ts';
import { releaseInput } from '../harness/release-setup.ts';
import { startRelease, startTestWorkers, waitForStatus } from '../harness/running-release.ts';
import { type Scrape, scrape } from '../harness/scrape.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { SHARED_BUNDLES } from '../harness/workflow-bundle.ts';
import { startTestHub, type TestHub } from '../hub-server/test-hub.ts';

/** Secrets of this worker, in none of what it tells. */
const SECRETS = {
  HF_TOKEN: 'hf_CanaryOfTheHub',
  WELDLINE_ENDPOINT_KEY: 'sk-CanaryOfTheEndpoint',
  OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Basic%20CanaryOfTheCollector',
};
const ID = 'release-observed-1.0.0';

let server: TestServer;
let hub: TestHub;
let models: OpenAiServer;
let otlp: OtlpReceiver;
let workers: RunningWorkers | undefined;
let connection: Connection | undefined;
let home: string;
let result: ReleaseResult;
let metrics: Scrape;
let metricsAddress: string;

beforeAll(async () => {
  const adapter = join(EXAMPLE, 'adapters', 'calculator');
  const names = await readdir(adapter);
  const files = await Promise.all(names.map((name) => readFile(join(adapter, name))));
  const repository = { main: Object.fromEntries(names.map((name, index) => [name, files[index]])) };
  [server, hub, otlp] = await Promise.all([
    startTestServer(),
    startTestHub(
      { 'org/calculator': repository as Record<'main', Record<string, Buffer>> },
      { privateRepositories: { 'org/calculator': [SECRETS.HF_TOKEN] } },
    ),
    startOtlpReceiver(),
  ]);
  models = await startModels();
  await loadWorkflowBundle(SHARED_BUNDLES, createLogger('error'), { traced: true });
  const setup = await setUpQuality(join(server.directory, 'observed'));
  home = setup.home;
  metricsAddress = `127.0.0.1:${await findFreePort()}`;
  const environment = readEnvironment({
    ...setup.variables,
    ...SECRETS,
    HF_ENDPOINT: hub.endpoint,
    WELDLINE_HOST: 'observed-host',
    WELDLINE_METRICS_ADDRESS: metricsAddress,
    OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url,
  });
  // OpenTelemetry reads its headers itself.
  process.env['OTEL_EXPORTER_OTLP_HEADERS'] = SECRETS.OTEL_EXPORTER_OTLP_HEADERS;
  const tracing = (await startTracing(environment, () => undefined)) as Tracing;
  connection = await Connection.connect({ address: server.address });
  const { namespace } = server;
  const interceptors = { workflow: [tracing.client] };
  const client = new Client({ connection, namespace, interceptors });
  workers = await startTestWorkers(server, environment);
  const served = { base: 'b', merged: 'm', 'adapter:calculator': 'a' };
  const recipe = qualityRecipe(setup, {
    name: 'observed',
    adapter: 'hf://org/calculator',
    evaluate: { suites: [exampleSuite()], endpoint: { url: models.url, models: served } },
  });
  const release = await startRelease(client, releaseInput(recipe), ID);
  await waitForStatus(release, 'an endpoint', ({ waiting }) => waiting !== undefined);
  isServing = true;
  await release.signal(resumeSignal);
  result = await release.result();
  metrics = await scrape(metricsAddress);
  await workers.stop();
  await tracing.flush();
}, 120_000);

afterAll(async () => {
  delete process.env['OTEL_EXPORTER_OTLP_HEADERS'];
  await workers?.stop();
  await connection?.close();
  await Promise.all([server.stop(), hub.close(), models.close(), otlp.close()]);
});

let isServing = false;

/** Says yes to all, once it serves; before, it is not there. */
function startModels(): Promise<OpenAiServer> {
  const never = {
    identity: 'none',
    answer: () => {
      throw new Error('asked');
    },
    close: async () => {},
  };
  return startOpenAiServer({
    models: { b: never, m: never, a: never },
    key: SECRETS.WELDLINE_ENDPOINT_KEY,
    intercept: (_attempt, response) => {
      if (!isServing) response.writeHead(401).end(SECRETS.WELDLINE_ENDPOINT_KEY);
      else {
        response.end(
          'data: {"choices":[{"text":" yes","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
        );
      }
      return true;
    },
  });
}

describe('debug', () => {
  it('shows', async () => {
    const { writeFileSync } = await import('node:fs');
    writeFileSync('/tmp/qobs-scrape.txt', metrics.text);
    writeFileSync('/tmp/qobs-log.txt', await readFile(releaseLogPath(home, ID)));
    writeFileSync('/tmp/qobs-spans.json', JSON.stringify([otlp.spans, otlp.resource], null, 1));
    writeFileSync('/tmp/qobs-result.json', JSON.stringify(result, null, 1));
  });
});
