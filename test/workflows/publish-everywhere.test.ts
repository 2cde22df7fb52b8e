/** One release to several real targets at once, signed, found again, checked and rolled back. */
import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LoadedRecipe, parseRecipe } from '../../config/recipe.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import type { ReleaseResult } from '../../workflows/messages.ts';
import { readFiles } from '../doubles/merge-directories.ts';
import { MOTO_VARIABLES, type MotoServer, startMoto } from '../harness/moto-server.ts';
import { type RegistryServer, startRegistry } from '../harness/registry-server.ts';
import {
  type ReleaseSetup,
  recipeText,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import { startRelease, startTestWorkers } from '../harness/running-release.ts';
import { S3Bucket } from '../harness/s3-bucket.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { type HubServer, startHubServer } from '../hub-server/hub-server.ts';
import { runWeldline } from '../run-weldline.ts';

const TOKEN = 'hf_canary_of_the_release';

let server: TestServer;
let setup: ReleaseSetup;
let workers: RunningWorkers;
let moto: MotoServer;
let registry: RegistryServer;
let hub: HubServer;
let hubRoot: string;
let publicKey: string;
let variables: Record<string, string>;

beforeAll(async () => {
  hubRoot = await mkdtemp(join(tmpdir(), 'weldline-hub-'));
  const accounts = { [TOKEN]: { name: 'ci', role: 'write', orgs: ['acme'] } } as const;
  [server, moto, registry, hub] = await Promise.all([
    startTestServer(),
    startMoto(),
    startRegistry(),
    startHubServer({ root: hubRoot, accounts }),
  ]);
  Object.assign(process.env, MOTO_VARIABLES);
  await S3Bucket.create(moto.url, 'models');
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const keyFile = join(server.directory, 'key.pem');
  publicKey = join(server.directory, 'public.pem');
  await writeFile(keyFile, keys.privateKey.export({ type: 'pkcs8', format: 'pem' }), {
    mode: 0o600,
  });
  await writeFile(publicKey, keys.publicKey.export({ type: 'spki', format: 'pem' }));
  variables = {
    ...MOTO_VARIABLES,
    AWS_ENDPOINT_URL_S3: moto.url,
    HF_ENDPOINT: hub.endpoint,
    HF_TOKEN: TOKEN,
    WELDLINE_SIGNING_KEY: keyFile,
  };
  setup = await setUpRelease(join(server.directory, 'release'), { variables });
  workers = await startTestWorkers(server, setup.environment);
});
afterAll(async () => {
  await workers?.stop();
  await Promise.all([server?.stop(), moto?.stop(), registry?.close(), hub?.close()]);
  for (const name of Object.keys(MOTO_VARIABLES)) delete process.env[name];
  await rm(hubRoot, { recursive: true });
});

function recipe(version: string): LoadedRecipe {
  const repository = `${registry.origin.replace('http://', '')}/models/tone`;
  const text = recipeText(setup, { version, adapterVersion: '3', trainingRun: 'run-8841' });
  const targets = [
    { directory: { path: setup.target }, aliases: ['latest'] },
    { hub: { repo: 'acme/tone', private: true }, aliases: ['latest'] },
    { s3: { bucket: 'models', prefix: 'team' }, aliases: ['latest'] },
    { oci: { repository, insecure: true }, aliases: ['latest'] },
  ];
  const publish = `sign: key\npublish: ${JSON.stringify(targets)}\n`;
  return parseRecipe(text.replace(/publish: .*\n/, publish), join(setup.directory, 'recipe.yaml'));
}

function weldline(...args: string[]) {
  return runWeldline([...args, '--json'], setup.variables);
}

async function release(version: string): Promise<ReleaseResult> {
  const handle = await startRelease(server.client, releaseInput(recipe(version)));
  return handle.result();
}

describe('a release to a directory, a hub, a bucket and a registry', () => {
  let first: ReleaseResult;
  beforeAll(async () => {
    first = await release('1.0.0');
  });

  it('is at each of them, under its name and pinned', () => {
    const { artefact, publications } = first;
    expect(publications.map(({ target, existed }) => [target, existed])).toEqual([
      ['directory', false],
      ['hub', false],
      ['s3', false],
      ['oci', false],
    ]);
    expect(publications.map(({ location }) => location)).toEqual([
      join(setup.target, artefact),
      `hf://acme/tone@${artefact}`,
      `s3://models/team/${artefact}`,
      `oci://${registry.origin.replace('http://', '')}/models/tone:${artefact}`,
    ]);
    expect(publications[1]?.pinned).toMatch(/^hf:\/\/acme\/tone@[0-9a-f]{40}$/);
    expect(publications[3]?.pinned).toMatch(/@sha256:[0-9a-f]{64}$/);
    expect(first.warnings).toEqual([]);
    expect(first.aliases?.map(({ alias, target }) => [alias, target])).toEqual([
      ['latest', setup.target],
      ['latest', 'hf://acme/tone'],
      ['latest', 's3://models/team'],
      ['latest', `oci://${registry.origin.replace('http://', '')}/models/tone`],
    ]);
  });

  it('holds what the tool of OpenSSF Model Signing takes for intact', async () => {
    const directory = join(setup.target, first.artefact);
    const { stdout } = await promisify(execFile)('.services/python/bin/python', [
      ...['-m', 'model_signing', 'verify', 'key', directory],
      ...['--signature', join(directory, 'model.sig'), '--public_key', publicKey],
    ]);
    expect(stdout).toContain('Verification succeeded');
  });

  it('is verified by its URI, wherever it is', async () => {
    for (const { location, target } of first.publications) {
      const { exitCode, stdout, stderr } = await weldline('verify', location, '--key', publicKey);
      expect([target, exitCode], `${stdout}${stderr}`).toEqual([target, 0]);
      const { claims } = JSON.parse(stdout) as { claims: { claim: string; status: string }[] };
      const verified = claims
        .filter(({ status }) => status === 'verified')
        .map(({ claim }) => claim);
      expect(verified, target).toEqual(
        expect.arrayContaining(['files', 'manifest', 'provenance', 'signature', 'adapters']),
      );
    }
  });

  it('is made again from its adapters in the registry, by another number of threads', async () => {
    const location = first.publications.at(-1)?.pinned ?? '';
    const args = ['reproduce', location, '--base', setup.base, '--threads', '1', '--json'];
    // Another home: nothing of the workspace is there.
    const home = join(server.directory, 'another-home');
    const again = await runWeldline(args, { ...setup.variables, WELDLINE_HOME: home });
    expect(again.exitCode, again.stdout + again.stderr).toBe(0);
    const { isReproduced, files } = JSON.parse(again.stdout) as {
      isReproduced: boolean;
      files: { path: string; isEqual: boolean }[];
    };
    expect(isReproduced).toBe(true);
    expect(files.map(({ path }) => path)).toContain('weldline.json');
  });

  it('is a no-op when it is run again, and sends nothing', async () => {
    const before = await readFiles(join(setup.target, first.artefact));
    const again = await release('1.0.0');
    expect(again.publications.map(({ existed }) => existed)).toEqual([true, true, true, true]);
    expect(again.publications.map(({ bytesSent }) => bytesSent)).toEqual([0, 0, 0, 0]);
    expect(await readFiles(join(setup.target, first.artefact))).toEqual(before);
  });

  it('moves its aliases with the next version, and back', async () => {
    const second = await release('1.0.1');
    expect(second.warnings).toEqual([]);
    const id = 'release-tone-model-1.0.1';
    const { exitCode, stdout, stderr } = await weldline('rollback', id, 'latest');
    expect(exitCode, stdout + stderr).toBe(0);
    expect(stdout).toContain(first.artefact);
    const ofBucket = await weldline('verify', 's3://models/team/latest', '--key', publicKey);
    expect(ofBucket.stdout).toContain(first.artefact);
    const latest = await weldline('verify', 'hf://acme/tone@latest', '--key', publicKey);
    expect(latest.stdout).toContain(first.artefact);
    const weights = await readFiles(join(setup.target, 'latest'));
    expect(weights).toEqual(await readFiles(join(setup.target, first.artefact)));
    expect(second.artefact).not.toBe(first.artefact);
  });
});
