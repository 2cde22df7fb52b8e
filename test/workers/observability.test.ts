/** What a worker tells of its work: metrics, traces and logs of one release, held against its facts. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Context } from '@temporalio/activity';
import { Client, Connection } from '@temporalio/client';
import { NativeConnection, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { observeActivity } from '../../activities/observe-activity.ts';
import { readEnvironment } from '../../config/environment.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { findFreePort } from '../../workers/free-port.ts';
import { createLogger } from '../../workers/logger.ts';
import { releaseLogPath } from '../../workers/release-logs.ts';
import { startReleaseMetrics } from '../../workers/release-metrics.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { startTracing, type Tracing } from '../../workers/tracing.ts';
import { loadWorkflowBundle } from '../../workers/workflow-bundle.ts';
import { type ReleaseInput, type ReleaseResult, resumeSignal } from '../../workflows/messages.ts';
import { type OpenAiServer, startOpenAiServer } from '../harness/openai-server.ts';
import { type OtlpReceiver, startOtlpReceiver } from '../harness/otlp-receiver.ts';
import { EXAMPLE, exampleSuite, qualityRecipe, setUpQuality } from '../harness/quality-setup.ts';
import { releaseInput } from '../harness/release-setup.ts';
import { startRelease, startTestWorkers, waitForStatus } from '../harness/running-release.ts';
import { type Scrape, scrape } from '../harness/scrape.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { waitFor } from '../harness/wait-for.ts';
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
let whileWaiting: Scrape;
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
    WELDLINE_HOST: 'gpu-7',
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
  whileWaiting = await scrapeOfWaiting();
  isServing = true;
  await release.signal(resumeSignal);
  result = await release.result();
  await failTwice(client, releaseInput(recipe));
  metrics = await scrape(metricsAddress);
  await workers.stop();
  await tracing.flush();
  // On a busy machine the receiver may need longer than a worker waits for it.
  await waitFor('the trace', async () => {
    const names = new Set(otlp.spans.map(({ name }) => name));
    return names.has('RunWorkflow:releaseModel') && names.has('RunActivity:mergeShard')
      ? names
      : undefined;
  });
}, 180_000);

afterAll(async () => {
  delete process.env['OTEL_EXPORTER_OTLP_HEADERS'];
  await workers?.stop();
  await connection?.close();
  await Promise.all([server.stop(), hub.close(), models.close(), otlp.close()]);
});

/** Looks often, where a worker would only after half a minute. */
async function scrapeOfWaiting(): Promise<Scrape> {
  const { namespace } = server;
  const logger = createLogger('error');
  const options = { connection: connection as Connection, namespace, logger, intervalMs: 200 };
  const stop = startReleaseMetrics(options);
  try {
    return await waitFor('a release that waits', async () => {
      const now = await scrape(metricsAddress);
      return now.sum('weldline_open_releases', { state: 'waiting' }) === 1 ? now : undefined;
    });
  } finally {
    stop();
  }
}

/** A release that fails: first for a reason that may pass, then for one that does not. */
async function failTwice(client: Client, input: ReleaseInput): Promise<void> {
  const taskQueue = 'failing';
  const reasons = ['hub.unavailable', 'recipe.invalid'] as const;
  const place = observeActivity(async () => {
    throw new WeldlineError(reasons[Context.current().info.attempt - 1] ?? 'internal.bug', 'no');
  });
  const code = await loadWorkflowBundle(SHARED_BUNDLES, createLogger('error'));
  const native = await NativeConnection.connect({ address: server.address });
  const { namespace } = server;
  const worker = await Worker.create({
    ...{ connection: native, namespace, taskQueue, activities: { place } },
    workflowBundle: { code },
  });
  const start = { taskQueue, workflowId: 'release-failing', args: [input] };
  await worker.runUntil(async () => {
    await expect(client.workflow.execute('releaseModel', start)).rejects.toThrow();
  });
  await native.close();
}

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

describe('metrics', () => {
  it('agree with the facts of the release', async () => {
    const manifest = JSON.parse(await readFile(join(result.directory, 'weldline.json'), 'utf8'));
    const shards: { path: string; size: number }[] = manifest.files.filter(
      ({ path }: { path: string }) => path.endsWith('.safetensors'),
    );
    const shardBytes = shards.reduce((sum, { size }) => sum + size, 0);
    expect(shardBytes).toBeGreaterThan(4_000_000);
    expect(metrics.sum('weldline_merged_bytes_total')).toBe(shardBytes);
    expect(metrics.sum('weldline_fetched_bytes_total')).toBe(hub.contentBytes());
    const sent = result.publications[0]?.bytesSent;
    expect(metrics.sum('weldline_published_bytes_total', { target: 'directory' })).toBe(sent);
  });

  it('count stages, decisions and releases by how they ended', () => {
    for (const stage of ['resolve', 'merge', 'evaluate', 'gate', 'publish', 'report']) {
      const labels = { stage, outcome: 'done' };
      expect(metrics.sum('weldline_stage_duration_seconds_count', labels), stage).toBe(1);
    }
    const waited = { stage: 'evaluate', outcome: 'waiting' };
    expect(metrics.sum('weldline_stage_duration_seconds_count', waited)).toBe(1);
    expect(metrics.sum('weldline_gate_decisions_total', { decision: 'passed' })).toBe(1);
    expect(metrics.sum('weldline_gate_decisions_total', { decision: 'refused' })).toBe(0);
    expect(metrics.sum('weldline_releases_total', { outcome: 'released' })).toBe(1);
    expect(metrics.sum('weldline_releases_total', { outcome: 'failed' })).toBe(1);
    expect(metrics.sum('weldline_open_releases', { state: 'running' })).toBeDefined();
  });

  it('count attempts that failed by code, and those that followed', () => {
    const failures = (code: string) => metrics.sum('weldline_activity_failures_total', { code });
    // Each of three models was asked.
    expect(failures('evaluate.endpoint-failed')).toBe(3);
    expect(failures('hub.unavailable')).toBe(1);
    expect(failures('recipe.invalid')).toBe(1);
    expect(metrics.sum('weldline_activity_retries_total')).toBe(1);
  });

  it('tell while a release waits that it does', () => {
    expect(whileWaiting.sum('weldline_open_releases', { state: 'waiting' })).toBe(1);
  });

  it('have labels of which there are few: no paths, no names of releases', () => {
    const values = metrics.samples.flatMap(({ labels }) => Object.values(labels));
    expect(values.length).toBeGreaterThan(100);
    for (const value of new Set(values))
      expect(value).not.toMatch(/\/|observed|calculator|1\.0\.0/);
  });

  it('that the dashboard and the alerts are about are there', async () => {
    const root = fileURLToPath(new URL('../../deploy/', import.meta.url));
    const dashboard = JSON.parse(await readFile(`${root}grafana/weldline.json`, 'utf8'));
    const rules = parse(await readFile(`${root}prometheus-rules.yml`, 'utf8'));
    const expressions: string[] = [
      ...dashboard.panels.flatMap(({ targets = [] }: { targets?: { expr: string }[] }) =>
        targets.map(({ expr }) => expr),
      ),
      ...rules.groups.flatMap((group: { rules: { expr: string }[] }) =>
        group.rules.map(({ expr }) => expr),
      ),
    ];
    const named = expressions.flatMap((expr) => expr.match(/\b(?:weldline|temporal)_\w+/g) ?? []);
    expect(new Set(named).size).toBeGreaterThan(14);
    const told = new Set(metrics.samples.map(({ name }) => name));
    // Only where a request to the server fails.
    told.add('temporal_request_failure_total');
    expect([...new Set(named)].filter((name) => !told.has(name))).toEqual([]);
  });
});

describe('traces', () => {
  it('show a release as one, from who started it to each activity', () => {
    const root = otlp.spans.find(({ name }) => name === 'StartWorkflow:releaseModel');
    expect(root?.parentSpanId).toBeUndefined();
    const spans = otlp.spans.filter(({ traceId }) => traceId === root?.traceId);
    const byId = new Map(spans.map((span) => [span.spanId, span]));
    const roadTo = (name: string): string[] => {
      const road: string[] = [];
      let span = spans.find((each) => each.name === name);
      while (span !== undefined) {
        road.unshift(span.name);
        span = byId.get(span.parentSpanId ?? '');
      }
      return road;
    };
    expect(roadTo('RunActivity:mergeShard')).toEqual([
      'StartWorkflow:releaseModel',
      'RunWorkflow:releaseModel',
      'StartChildWorkflow:mergeModel',
      'RunWorkflow:mergeModel',
      'StartActivity:mergeShard',
      'RunActivity:mergeShard',
    ]);
    expect(roadTo('RunActivity:publish')).toHaveLength(4);
  });

  it('say which release, stage and host they are of, and leave questions out', () => {
    const merge = otlp.spans.find(({ name }) => name === 'RunActivity:mergeShard');
    expect(merge?.attributes).toMatchObject({ release: ID, stage: 'merge' });
    expect(otlp.resource).toMatchObject({
      'service.name': 'weldline',
      'host.name': 'gpu-7',
    });
    expect(otlp.spans.filter(({ name }) => /Query|Describe/.test(name))).toEqual([]);
  });

  it('are sent with the headers that the collector wants', () => {
    expect(otlp.headers[0]).toMatchObject({ authorization: 'Basic CanaryOfTheCollector' });
  });
});

describe('the log of a release', () => {
  it('has each attempt once, with what it is about', async () => {
    const entries = (await readFile(releaseLogPath(home, ID), 'utf8'))
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(entries.length).toBeGreaterThan(30);
    for (const entry of entries) {
      expect(entry).toMatchObject({ release: ID, host: 'gpu-7' });
      expect(Date.parse(entry.time)).toBeGreaterThan(0);
    }
    const about = { stage: 'merge', activity: 'mergeShard', attempt: 1 };
    const merge = entries.filter(({ activity }) => activity === 'mergeShard');
    expect(merge.map(({ message }) => message)).toEqual(['Activity started', 'Activity finished']);
    expect(merge[1]).toMatchObject({
      ...about,
      durationMs: expect.any(Number),
      bytes: metrics.sum('weldline_merged_bytes_total'),
    });
    const failed = entries.filter(({ message }) => message === 'Activity failed');
    expect(failed).toHaveLength(3);
    expect(failed[0]).toMatchObject({
      level: 'WARN',
      stage: 'evaluate',
      code: 'evaluate.endpoint-failed',
      reason: expect.stringContaining(models.url),
    });
    expect(entries.at(-1)).toMatchObject({ message: 'Release ended', outcome: 'released' });
  });
});

it('no secret is in anything that is told', async () => {
  const logs = await readdir(join(home, 'logs'), { recursive: true, withFileTypes: true });
  const files = logs.filter((entry) => entry.isFile());
  const texts = await Promise.all(
    files.map(({ parentPath, name }) => readFile(join(parentPath, name), 'utf8')),
  );
  const told = [metrics.text, ...otlp.bodies, ...texts];
  expect(told.length).toBeGreaterThan(2);
  for (const text of told) expect(text).not.toMatch(/Canary/);
});
