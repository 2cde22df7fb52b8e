import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Secret } from '../../../config/secret.ts';
import { createMlflowPublisher } from '../../../publishers/mlflow/create-mlflow-publisher.ts';
import { MlflowPublisher } from '../../../publishers/mlflow/mlflow-publisher.ts';
import type { Artefact, ArtefactId, Published } from '../../../publishers/publisher.ts';
import { TEST_PATIENCE, testPublisher } from '../../conformance/publisher.ts';
import { type FaultyProxy, startFaultyProxy } from '../../harness/faulty-proxy.ts';
import {
  type MlflowServer,
  SERVICES_PYTHON,
  startMlflowServer,
} from '../../harness/mlflow-server.ts';
import { testArtefact } from '../../harness/test-artefact.ts';

const CANARY = 'canary-91c4';
const START_LIMIT_MS = 170_000;
const RELEASE = 'merged-tiny-1.0.0-adapter-tone-3';
const signal = new AbortController().signal;

let server: MlflowServer;
let proxy: FaultyProxy;
let models = 0;
beforeAll(async () => {
  server = await startMlflowServer();
  proxy = await startFaultyProxy(server.origin);
}, START_LIMIT_MS);
afterAll(async () => {
  await proxy?.close();
  await server?.close();
});

/** Where the files of an artefact are. */
function publishedAt({ release, manifestDigest }: Artefact): readonly Published[] {
  const place = { existed: false, bytesSent: 1 };
  const location = `s3://models/${release}`;
  const pinned = `oci://registry.example.com/models/support@sha256:${manifestDigest}`;
  return [
    { ...place, target: 'directory', location: `/srv/${release}`, pinned: `/srv/${release}` },
    { ...place, target: 's3', location, pinned: location },
    { ...place, target: 'oci', location: `oci://registry.example.com/models:${release}`, pinned },
  ];
}

interface Version {
  readonly name: string;
  readonly version: string;
  readonly source: string;
  readonly tags: readonly { readonly key: string; readonly value: string }[];
}

/** Versions at the server, as anybody can ask for them. */
async function versionsOf(model: string): Promise<readonly Version[]> {
  const url = new URL('/api/2.0/mlflow/model-versions/search', server.origin);
  url.searchParams.set('filter', `tags.\`weldline.model\` = '${model}'`);
  const answer = (await (await fetch(url)).json()) as { model_versions?: readonly Version[] };
  return answer.model_versions ?? [];
}

function tagOf({ tags }: Version, key: string): string | undefined {
  return tags.find((tag) => tag.key === `weldline.${key}`)?.value;
}

async function open() {
  proxy.clear();
  const model = `support ${models++}`;
  const target = { model, trackingUri: proxy.origin };
  return {
    publisher: createMlflowPublisher(target, { token: new Secret(CANARY) }, TEST_PATIENCE),
    read: async ({ release, part }: ArtefactId) => {
      const all = await versionsOf(model);
      const isThere = all.some(
        (version) => tagOf(version, 'release') === release && tagOf(version, 'part') === part,
      );
      return isThere ? new Map<string, Buffer>() : undefined;
    },
    everything: async () => (await versionsOf(model)).map(({ version }) => version),
    proxy,
    secrets: [CANARY],
    publishedAt,
    cleanUp: async () => undefined,
  };
}

testPublisher('MLflow', open, {
  holds: 'references',
  aliasesRace: true,
  hasServer: true,
  changesHit: 1,
});

describe('versions in MLflow', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weldline-mlflow-test-'));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  const publisherOf = (model: string, source?: 's3') =>
    new MlflowPublisher(
      { model, trackingUri: server.origin, ...(source && { source }) },
      TEST_PATIENCE,
    );
  const optionsFor = (artefact: Artefact) => ({
    ...{ signal, onProgress: () => undefined, publishedAt: publishedAt(artefact) },
  });

  it('are what its own client sees: source, tags, scores, alias', async () => {
    const publisher = publisherOf('seen by all', 's3');
    const artefact = await testArtefact(directory, { release: RELEASE, part: 'gguf-q4_k_m' });
    await publisher.publish(artefact, optionsFor(artefact));
    for (const alias of ['production', 'latest']) {
      const move = { alias, part: 'gguf-q4_k_m', to: RELEASE, from: undefined, history: [] };
      await publisher.moveAlias(move, signal);
    }
    const name = 'seen by all-gguf-q4_k_m';
    const script = `
import json, sys
from mlflow import MlflowClient
client = MlflowClient(${JSON.stringify(server.origin)})
version = client.get_model_version_by_alias(${JSON.stringify(name)}, "production")
run = client.get_run(version.run_id)
print(json.dumps({"version": version.version, "source": version.source, "tags": version.tags,
  "aliases": sorted(version.aliases), "metrics": run.data.metrics, "params": run.data.params,
  "status": run.info.status, "experiment": client.get_experiment(run.info.experiment_id).name}))
`;
    const { stdout } = await promisify(execFile)(SERVICES_PYTHON, ['-c', script]);
    const { description } = artefact;
    expect(JSON.parse(stdout)).toEqual({
      source: `s3://models/${RELEASE}`,
      tags: {
        'weldline.model': 'seen by all',
        'weldline.release': RELEASE,
        'weldline.part': 'gguf-q4_k_m',
        'weldline.manifest_digest': artefact.manifestDigest,
        'weldline.plan_digest': artefact.planDigest,
        'weldline.created_at': description.createdAt,
        'weldline.name': 'tiny',
        'weldline.version': '1.0.0',
        'weldline.kind': 'gguf',
        'weldline.base': description.base,
        'weldline.adapters': `tone=${description.adapters[0]?.model}`,
        'weldline.workflow_id': 'tiny-1.0.0',
        'weldline.run_id': 'run-1',
        'weldline.gate': 'passed',
        'weldline.license': 'apache-2.0',
      },
      // MLflow keeps "latest" for itself.
      aliases: ['production', 'weldline-latest'],
      version: expect.anything(),
      metrics: { 'calculator/exact_match': 0.95 },
      params: expect.objectContaining({ base: description.base, architecture: 'llama' }),
      ...{ status: 'FINISHED', experiment: 'seen by all' },
    });
    expect(await publisher.readAlias('latest', 'gguf-q4_k_m', signal)).toEqual({
      ...{ release: RELEASE, history: [] },
    });
  });

  it('point at the target of the recipe, and are refused without one', async () => {
    const artefact = await testArtefact(directory, { release: RELEASE });
    const local = publishedAt(artefact).slice(0, 1);
    for (const [source, message] of [
      [undefined, /neither on hub nor s3 nor oci/],
      ['s3', /neither on s3/],
    ] as const) {
      const options = { ...optionsFor(artefact), publishedAt: local };
      await expect(publisherOf('nowhere', source).publish(artefact, options)).rejects.toMatchObject(
        {
          code: 'publish.rejected',
          message: expect.stringMatching(message),
        },
      );
    }
    expect(await versionsOf('nowhere')).toEqual([]);
    const publisher = publisherOf('somewhere');
    await publisher.publish(artefact, optionsFor(artefact));
    // What has been registered needs no source any more.
    const again = await publisher.publish(artefact, { ...optionsFor(artefact), publishedAt: [] });
    expect(again.existed).toBe(true);
    const [{ source } = { source: '' }] = await versionsOf('somewhere');
    expect(source).toMatch(/^s3:/);
  });

  it('of somebody else are left alone', async () => {
    const ask = async (path: string, body: object) =>
      fetch(new URL(`/api/2.0/mlflow/${path}`, server.origin), {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
    await ask('registered-models/create', { name: 'shared' });
    const tags = [{ key: 'weldline.model', value: 'shared' }];
    await ask('model-versions/create', { name: 'shared', source: 's3://other/model', tags });
    await ask('registered-models/alias', { name: 'shared', alias: 'champion', version: '1' });
    const publisher = publisherOf('shared');
    const artefact = await testArtefact(directory, { release: RELEASE });
    await publisher.publish(artefact, optionsFor(artefact));
    expect(await publisher.list(signal)).toHaveLength(1);
    expect(await publisher.listAliases(signal)).toEqual([]);
    await publisher.withdraw({ release: RELEASE }, signal);
    expect((await versionsOf('shared')).map((version) => version.source)).toEqual([
      's3://other/model',
    ]);
  });

  it('are made with credentials in a header, and only with a server', async () => {
    const make = (trackingUri: string | undefined, environment: object) =>
      createMlflowPublisher(
        { model: 'support', ...(trackingUri && { trackingUri }) },
        environment,
        TEST_PATIENCE,
      );
    for (const uri of [undefined, 'sqlite:///mlflow.db', './mlruns', 'http://']) {
      expect(() => make(uri, {})).toThrow(expect.objectContaining({ code: 'config.invalid' }));
    }
    const inAddress = proxy.origin.replace('//', `//someone:${CANARY}@`);
    expect(make(undefined, { trackingUri: inAddress }).name).not.toContain(CANARY);
    proxy.clear();
    proxy.fail({ kind: 'status', status: 401, times: 1, body: `{"message":"not ${CANARY}"}` });
    const environment = { username: 'someone', password: new Secret(CANARY) };
    const failure = await make(proxy.origin, environment)
      .list(signal)
      .catch((error: Error) => error);
    expect(failure).toMatchObject({ code: 'publish.unauthorized' });
  });
});
