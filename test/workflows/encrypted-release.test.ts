/** Releases of which the server may know nothing: through TLS, under keys, by rotating keys. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Client, type WorkflowHandle } from '@temporalio/client';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { connectClient } from '../../cli/connect-client.ts';
import { readEnvironment } from '../../config/environment.ts';
import { readTemporalTarget, type TemporalTarget } from '../../config/temporal-connection.ts';
import { createLogger } from '../../workers/logger.ts';
import { startWorkers } from '../../workers/main.ts';
import { EncryptionCodec } from '../../workers/payload-codec.ts';
import { payloadKeysOf } from '../../workers/payload-keys.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { loadWorkflowBundle } from '../../workers/workflow-bundle.ts';
import { resumeSignal } from '../../workflows/messages.ts';
import { runCommand } from '../harness/command.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
  writeRecipe,
} from '../harness/release-setup.ts';
import { failureOf, startRelease, waitForStatus } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import {
  makeCertificates,
  SERVER_NAME,
  startTlsProxy,
  type TlsProxy,
} from '../harness/tls-proxy.ts';
import { waitFor } from '../harness/wait-for.ts';
import { SHARED_BUNDLES } from '../harness/workflow-bundle.ts';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

/** In every path of a release, and so in most of what it tells the server. */
const CANARY = 'canary-4c77';
const API_KEY = 'key-canary-02ab';
const [OLD, NEW] = [randomBytes(32), randomBytes(32)].map((key) => key.toString('base64'));

let server: TestServer;
let proxy: TlsProxy;
/** What the environment names, as a user would. */
let variables: Record<string, string>;
let target: TemporalTarget;
let workers: RunningWorkers | undefined;
let count = 0;

beforeAll(async () => {
  await loadWorkflowBundle(SHARED_BUNDLES, createLogger('error'), { encodesFailures: true });
  server = await startTestServer();
  const certificates = server.directory;
  await makeCertificates(certificates);
  proxy = await startTlsProxy(server.address, { certificates, mutual: true, apiKey: API_KEY });
  const file = join(certificates, 'temporal.toml');
  const path = (name: string): string => JSON.stringify(join(certificates, name));
  await writeFile(
    file,
    `[profile.prod]\naddress = "${proxy.address}"\nnamespace = "${server.namespace}"\n` +
      `api_key = "${API_KEY}"\n[profile.prod.tls]\nserver_name = "${SERVER_NAME}"\n` +
      `client_cert_path = ${path('client.pem')}\nclient_key_path = ${path('client.key')}\n` +
      `server_ca_cert_path = ${path('ca.pem')}\n`,
  );
  variables = { TEMPORAL_CONFIG_FILE: file, TEMPORAL_PROFILE: 'prod' };
  target = readTemporalTarget(variables);
});
afterAll(async () => {
  await stopThem();
  await proxy.close();
  await server.stop();
});

/** @param keys lines of the file of keys; none for no file */
async function setUp(...keys: readonly string[]): Promise<ReleaseSetup> {
  const directory = join(server.directory, `${CANARY}-${count++}`);
  await mkdir(directory);
  const file = join(directory, 'keys');
  await writeFile(file, keys.join('\n'), { mode: 0o600 });
  const environment = keys.length === 0 ? {} : { WELDLINE_PAYLOAD_KEYS: file };
  return setUpRelease(directory, { variables: { ...variables, ...environment } });
}

const line = (id: string, key: string | undefined): string => `${id} ${key}`;

async function stopThem(): Promise<void> {
  await workers?.stop();
  workers = undefined;
}

async function startThem({ environment }: Pick<ReleaseSetup, 'environment'>): Promise<void> {
  await stopThem();
  const { address, namespace, ...connection } = target;
  // What a worker without a key cannot read is an error of the SDK's log, and expected here.
  const logger = createLogger('error', join(server.directory, 'worker.log'));
  workers = await startWorkers({ environment, address, namespace, connection, logger });
}

async function withClient<T>(
  { environment }: Pick<ReleaseSetup, 'environment'>,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const connection = await connectClient(target);
  const payloadCodecs = [new EncryptionCodec(payloadKeysOf(environment))];
  const { namespace } = target;
  try {
    return await work(new Client({ connection, namespace, dataConverter: { payloadCodecs } }));
  } finally {
    await connection.close();
  }
}

/** All that the server has of a release and its merge, as it is stored, with what is in base64. */
async function stored(workflowId: string): Promise<string> {
  const ids = [workflowId, `${workflowId}/merge`];
  const texts: string[] = [];
  for (const id of ids) {
    const handle: WorkflowHandle = server.client.workflow.getHandle(id);
    const history = await handle.fetchHistory().catch(() => undefined);
    if (history === undefined) continue;
    const json = historyToJSON(history);
    const described = await server.client.workflowService.describeWorkflowExecution({
      namespace: server.namespace,
      execution: { workflowId: id },
    });
    const decoded = [...json.matchAll(/": ?"([A-Za-z0-9+/]{16,}=*)"/g)].map(([, data]) =>
      Buffer.from(data ?? '', 'base64').toString('latin1'),
    );
    texts.push(json, JSON.stringify(described), ...decoded);
  }
  return texts.join('\n');
}

function keyIdsIn(text: string): Set<string | undefined> {
  const ids = text.matchAll(/"encryption-key-id": ?"([^"]+)"/g);
  return new Set([...ids].map(([, id]) => Buffer.from(id ?? '', 'base64').toString()));
}

describe('a release under a key, through a server that wants certificate and key', () => {
  let setup: ReleaseSetup;
  beforeAll(async () => {
    setup = await setUp(line('k1', OLD));
    await startThem(setup);
  });
  afterAll(stopThem);

  it('runs as any other, and the server learns names and times only', async () => {
    const recipe = await writeRecipe(setup, { trainingRun: CANARY });
    const run = await runCommand(['release', recipe], { variables: setup.variables });
    expect(run.status, run.stderr).toBe(0);
    expect(run.stdout).toContain('Released merged-tiny-1.0.0-adapter-tone-');
    expect(await readdir(setup.target)).toHaveLength(1);
    const text = await stored('release-tone-model-1.0.0');
    expect(keyIdsIn(text)).toEqual(new Set(['k1']));
    expect(text).not.toMatch(new RegExp(`${CANARY}|${API_KEY}|tiny|json/plain`));
    expect(new Set(proxy.requests.map(({ authorization }) => authorization))).toEqual(
      new Set([`Bearer ${API_KEY}`]),
    );
  });

  it('fails with its reason, which only those with the key can read', async () => {
    await rm(join(setup.adapter, 'adapter_config.json'));
    const version = '2.0.0';
    const failure = await withClient(setup, async (client) =>
      failureOf(await startRelease(client, releaseInput(recipeOf(setup, { version })))),
    );
    expect(failure).toMatchObject({
      code: 'adapter.config-missing',
      message: expect.stringContaining(CANARY),
    });
    const text = await stored('release-tone-model-2.0.0');
    expect(text).toContain('Encoded failure');
    expect(text).not.toContain(CANARY);
    const withoutKeys = { environment: readEnvironment({ HF_TOKEN: 'none' }) };
    await withClient(withoutKeys, async (client) => {
      const release = client.workflow.getHandle('release-tone-model-2.0.0');
      await expect(release.describe()).rejects.toMatchObject({ code: 'payload.key-missing' });
    });
  });

  it('shows no schedule that was made under a key', async () => {
    const schedule = await withClient(setup, async (client) => {
      const handle = await client.schedule.create({
        scheduleId: 'nightly',
        spec: {},
        action: {
          type: 'startWorkflow',
          workflowType: 'releaseModel',
          taskQueue: 'weldline',
          args: [releaseInput(recipeOf(setup))],
          memo: { text: CANARY },
          staticSummary: CANARY,
        },
      });
      const { raw, action } = await handle.describe();
      return { action: JSON.stringify(action), raw: JSON.stringify(raw) };
    });
    expect(schedule.action).toContain(CANARY);
    expect(schedule.raw).not.toContain(CANARY);
    expect(schedule.raw).not.toContain(Buffer.from(CANARY).toString('base64').slice(0, 12));
  });
});

describe('a key that changes while a release runs', () => {
  it('stops workers that lack it, which say so, and none that has both', async () => {
    const setup = await setUp(line('old', OLD));
    await startThem(setup);
    const obstacle = join(setup.directory, 'obstacle');
    await writeFile(obstacle, '');
    const targets = [join(obstacle, 'out')];
    const workflowId = await withClient(setup, async (client) => {
      const recipe = recipeOf(setup, { version: '3.0.0', targets });
      const release = await startRelease(client, releaseInput(recipe));
      await waitForStatus(release, 'it waits', ({ waiting }) => waiting !== undefined, 120_000);
      await rm(obstacle);
      return release.workflowId;
    });
    await withKeys(setup, line('new', NEW));
    const handle = server.client.workflow.getHandle(workflowId);
    await handle.signal(resumeSignal);
    await waitFor('the failure of a task', async () => {
      const { events } = await handle.fetchHistory();
      return events?.find((event) => event.workflowTaskFailedEventAttributes != null);
    });
    await withKeys(setup, line('new', NEW), line('old', OLD));
    await withClient(setup, (client) => client.workflow.getHandle(workflowId).result());
    expect(await readdir(join(obstacle, 'out'))).toHaveLength(1);
    expect(keyIdsIn(await stored(workflowId))).toEqual(new Set(['old', 'new']));
  });

  async function withKeys(setup: ReleaseSetup, ...keys: readonly string[]): Promise<void> {
    await writeFile(join(setup.directory, 'keys'), keys.join('\n'));
    await startThem(setup);
  }
});
