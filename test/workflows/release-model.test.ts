import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { WorkflowFailedError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import type { ReleaseResult } from '../../workflows/messages.ts';
import { resumeSignal, STAGES, statusQuery } from '../../workflows/messages.ts';
import { mergeDirectories, readFiles, writeFiles } from '../doubles/merge-directories.ts';
import { adapterFiles, tinyAdapter } from '../doubles/tiny-model.ts';
import {
  type RecipeChanges,
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import {
  activityRuns,
  failureOf,
  historyText,
  startRelease,
  startTestWorkers,
  type TestRelease,
  waitForStatus,
} from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';

let server: TestServer;
let setup: ReleaseSetup;
let workers: RunningWorkers;

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpRelease(join(server.directory, 'release'));
  workers = await startTestWorkers(server, setup.environment);
});
afterAll(async () => {
  await workers.stop();
  await server.stop();
});

function release(changes: RecipeChanges): Promise<TestRelease> {
  return startRelease(server.client, releaseInput(recipeOf(setup, changes)));
}

async function filesUnder(directory: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const name of await readdir(directory)) {
    const { ino, mtimeMs, size } = await stat(join(directory, name));
    files.set(name, `${ino} ${mtimeMs} ${size}`);
  }
  return files;
}

/** What is said of the checkpoint, beside its weights. */
const DOCUMENTS = ['README.md', 'bom.cdx.json', 'provenance.intoto.json', 'release.json'];

describe('a release', () => {
  let handle: TestRelease;
  let result: ReleaseResult;

  beforeAll(async () => {
    handle = await release({ adapterVersion: '3', trainingRun: 'run-8841' });
    result = await handle.result();
  });

  it('says what it made and where it is', () => {
    expect(result).toMatchObject({
      artefact: 'merged-tiny-1.0.0-adapter-tone-3',
      publications: [{ location: join(setup.target, result.artefact), existed: false }],
      verification: { tensorsChecked: 19, rowsRecomputed: 12 },
      warnings: [],
    });
    expect(result.verification.worstRounding).toBeLessThanOrEqual(1);
    expect(result.directory.startsWith(setup.home)).toBe(true);
  });

  it('goes through all stages in their order', async () => {
    const { stages, waiting } = await handle.query(statusQuery);
    const unasked = ['convert', 'evaluate', 'gate', 'approve'];
    expect(stages.map(({ stage }) => stage)).toEqual(
      STAGES.filter((stage) => !unasked.includes(stage)),
    );
    expect(stages.every(({ state }) => state === 'done')).toBe(true);
    expect(waiting).toBeUndefined();
    const times = stages.flatMap(({ startedAtMs, finishedAtMs }) => [startedAtMs, finishedAtMs]);
    expect(times).toEqual(times.toSorted((a, b) => Number(a) - Number(b)));
  });

  it('publishes the bytes that a merge in this process makes', async () => {
    const output = join(server.directory, 'expected');
    await mergeDirectories({ base: setup.base, adapter: setup.adapter, output });
    const expected = await readFiles(output);
    const published = await readFiles(join(setup.target, result.artefact));
    expect([...published.keys()].sort()).toEqual(
      [
        ...expected.keys(),
        ...['adapter_config.json', 'adapter_model.safetensors'].map(
          (name) => `adapters/tone/${name}`,
        ),
        ...DOCUMENTS,
      ].sort(),
    );
    for (const [name, bytes] of expected) {
      // The manifest names the inputs, which this merge calls otherwise.
      if (name !== 'weldline.json') expect(published.get(name)?.equals(bytes), name).toBe(true);
    }
  });

  it('records what went in, what came out and who made it', async () => {
    const facts = JSON.parse(
      await readFile(join(setup.target, result.artefact, 'release.json'), 'utf8'),
    );
    expect(facts).toMatchObject({
      format: 'weldline.release',
      artefact: result.artefact,
      plan: result.planDigest,
      manifestDigest: result.manifestDigest,
      recipe: {
        name: 'tone-model',
        version: '1.0.0',
        digest: recipeOf(setup, { adapterVersion: '3', trainingRun: 'run-8841' }).digest,
      },
      run: { workflowId: handle.workflowId },
      tensors: { total: 19, merged: 4, replaced: 0 },
    });
    expect(facts.inputs).toMatchObject([
      { id: 'base', model: 'tiny' },
      { id: 'tone', model: 'tone', trainingRun: 'run-8841' },
    ]);
    const report = JSON.parse(await readFile(result.report.json, 'utf8'));
    const { run, inputs, verification } = facts;
    expect(report).toMatchObject({ run, inputs, verification, publications: result.publications });
    expect(facts.stages.map(({ stage }: { stage: string }) => stage)).toEqual(
      STAGES.slice(0, STAGES.indexOf('convert')).concat('publish'),
    );
    const listed = facts.contents.map(({ path }: { path: string }) => path).sort();
    const unlisted = ['provenance.intoto.json', 'release.json'];
    const published = await readFiles(join(setup.target, result.artefact));
    expect([...listed, ...unlisted].sort()).toEqual([...published.keys()].sort());
  });

  it('names no path of the machine in anything it publishes', async () => {
    const published = await readFiles(join(setup.target, result.artefact));
    for (const name of [...DOCUMENTS, 'weldline.json', 'config.json']) {
      const text = published.get(name)?.toString('utf8') ?? '';
      expect(text.length, name).toBeGreaterThan(0);
      expect(text, name).not.toContain(server.directory);
      expect(text, name).not.toMatch(/(^|[\s"'`(])\/(tmp|home|root|Users|var|private)\//);
    }
  });

  it('runs each activity once and holds no more than it needs in its history', async () => {
    const runs = await activityRuns(handle);
    expect(runs.map(({ type }) => type)).toEqual([
      ...[
        'place',
        'resolveInputs',
        'fetchInput',
        'preflight',
        'fetchInput',
        'plan',
        'seal',
        'verify',
      ],
      ...['publish', 'report'],
    ]);
    expect(runs.every(({ attempts }) => attempts === 1)).toBe(true);
    expect((await historyText(handle)).length).toBeLessThan(200_000);
  });

  it('is a no-op when it is run again', async () => {
    const published = await filesUnder(join(setup.target, result.artefact));
    const sealed = await filesUnder(result.directory);
    const again = await release({ adapterVersion: '3', trainingRun: 'run-8841' });
    const second = await again.result();
    expect(second).toMatchObject({
      planDigest: result.planDigest,
      manifestDigest: result.manifestDigest,
      publications: [{ location: result.publications[0]?.location, existed: true }],
    });
    expect(await filesUnder(join(setup.target, result.artefact))).toEqual(published);
    expect(await filesUnder(result.directory)).toEqual(sealed);
  });

  it('records the new version when only the version changed', async () => {
    const next = await release({ version: '1.1.0', adapterVersion: '3', trainingRun: 'run-9000' });
    const { artefact, planDigest } = await next.result();
    expect(planDigest).toBe(result.planDigest);
    const directory = join(setup.target, artefact);
    const facts = JSON.parse(await readFile(join(directory, 'release.json'), 'utf8'));
    expect(facts).toMatchObject({ version: '1.1.0', recipe: { version: '1.1.0' } });
    expect(facts.inputs[1]).toMatchObject({ trainingRun: 'run-9000' });
    const card = await readFile(join(directory, 'README.md'), 'utf8');
    expect(card).toContain('run-9000');
    expect(card).not.toContain('run-8841');
    const manifest = await readFile(join(directory, 'weldline.json'), 'utf8');
    expect(manifest).not.toMatch(/1\.0\.0|run-8841/);
  });

  it('refuses other bytes under a published name, and makes them under the next version', async () => {
    const other = join(server.directory, 'tone-2');
    await writeFiles(other, adapterFiles(tinyAdapter({ seed: 77 })));
    const refused = await release({ adapter: other, adapterVersion: '3' });
    const { code, message } = await failureOf(refused);
    expect(code).toBe('publish.conflict');
    expect(message).toContain(join(setup.target, result.artefact));
    const { planDigest } = await (await release({ adapter: other, adapterVersion: '4' })).result();
    expect(planDigest).not.toBe(result.planDigest);
  });

  it('stays in the workspace when the recipe publishes nowhere', async () => {
    const handle = await release({ name: 'unpublished', targets: [] });
    const { publications, directory } = await handle.result();
    expect(publications).toEqual([]);
    expect(await readdir(directory)).toContain('weldline.json');
  });

  it('says that a published file was changed, and publishes anew once it is out of the way', async () => {
    const changes = { name: 'touched', targets: [join(server.directory, 'touched')] };
    const first = await (await release(changes)).result();
    const location = first.publications[0]?.location ?? '';
    const weights = join(location, 'model-00001-of-00002.safetensors');
    const original = await readFile(weights);
    await writeFile(weights, Buffer.from(original).fill(7, original.length - 9));
    const { code, message } = await failureOf(await release(changes));
    expect(code).toBe('verify.digest-mismatch');
    expect(message).toContain(weights);
    expect(message).toContain('Remove');
    await rm(location, { recursive: true });
    await (await release(changes)).result();
    expect(await readFile(weights)).toEqual(original);
  });

  it('makes a merge again whose files in the workspace were changed', async () => {
    const changes = { name: 'damaged', targets: [join(server.directory, 'damaged')] };
    const first = await (await release(changes)).result();
    const sealed = join(first.directory, 'model-00001-of-00002.safetensors');
    const original = await readFile(sealed);
    await writeFile(sealed, Buffer.from(original).fill(7, original.length - 9));
    await rm(first.publications[0]?.location ?? '', { recursive: true });
    const second = await (await release(changes)).result();
    expect(await readFile(sealed)).toEqual(original);
    const published = join(
      second.publications[0]?.location ?? '',
      'model-00001-of-00002.safetensors',
    );
    expect(await readFile(published)).toEqual(original);
  });

  it('publishes to several targets', async () => {
    const targets = ['a', 'b', 'c'].map((name) => join(server.directory, 'several', name));
    const handle = await release({ name: 'several', targets });
    const { publications, artefact } = await handle.result();
    expect(publications.map(({ location }) => location)).toEqual(
      targets.map((target) => join(target, artefact)),
    );
    for (const { location } of publications) expect(await readdir(location)).toContain('README.md');
  });
});

describe('a permanent failure', () => {
  it('fails the release at once, with its code and without another attempt', async () => {
    const stranger = join(server.directory, 'stranger');
    const model = tinyAdapter();
    for (const [index, tensor] of model.tensors.entries()) {
      model.tensors[index] = { ...tensor, name: tensor.name.replace('layers.', 'blocks.') };
    }
    await writeFiles(stranger, adapterFiles(model));
    const handle = await release({ name: 'stranger', adapter: stranger });
    const { code, message } = await failureOf(handle);
    expect(code).toBe('adapter.unbound-tensor');
    expect(message).toContain('blocks.0.self_attn.q_proj');
    const runs = await activityRuns(handle);
    expect(runs.at(-1)).toEqual({
      type: 'preflight',
      attempts: 1,
      failures: ['adapter.unbound-tensor'],
    });
    const { stages } = await handle.query(statusQuery);
    expect(stages.find(({ stage }) => stage === 'preflight')?.state).toBe('failed');
    expect(stages.find(({ stage }) => stage === 'plan')?.state).toBe('pending');
  });

  it('names a model that does not exist', async () => {
    const handle = await release({ name: 'missing', adapter: join(server.directory, 'nothing') });
    const { code, message } = await failureOf(handle);
    expect(code).toBe('source.not-found');
    expect(message).toContain(join(server.directory, 'nothing'));
  });
});

describe('a failure that a person can mend', () => {
  it('waits, says why, and goes on when it is told to', async () => {
    // A file where the directory of the target should be made.
    const obstacle = join(server.directory, 'obstacle');
    await writeFile(obstacle, 'in the way');
    const handle = await release({ name: 'mended', targets: [join(obstacle, 'releases')] });
    const { waiting, stages } = await waitForStatus(
      handle,
      'waiting',
      (s) => s.waiting !== undefined,
    );
    expect(waiting).toMatchObject({ stage: 'preflight', code: 'publish.not-writable' });
    expect(waiting?.message).toContain(obstacle);
    expect(stages.find(({ stage }) => stage === 'preflight')?.state).toBe('waiting');

    // Told too early it tries again, and waits again.
    await handle.signal(resumeSignal);
    await waitForStatus(handle, 'waiting again', (s) => s.waiting !== undefined);

    await rm(obstacle);
    await handle.signal(resumeSignal);
    const { publications } = await handle.result();
    expect(await readdir(publications[0]?.location ?? '')).toContain('release.json');
    expect((await handle.query(statusQuery)).waiting).toBeUndefined();
    const preflights = (await activityRuns(handle)).filter(({ type }) => type === 'preflight');
    expect(preflights.length).toBeGreaterThanOrEqual(2);
    expect(preflights.every(({ attempts }) => attempts === 1)).toBe(true);
  });

  it('can be cancelled while it waits', async () => {
    const obstacle = join(server.directory, 'obstacle-2');
    await writeFile(obstacle, 'in the way');
    const handle = await release({ name: 'given-up', targets: [join(obstacle, 'releases')] });
    await waitForStatus(handle, 'waiting', (s) => s.waiting !== undefined);
    await handle.cancel();
    await expect(handle.result()).rejects.toMatchObject({ cause: { name: 'CancelledFailure' } });
    expect((await handle.query(statusQuery)).waiting).toBeUndefined();
  });

  it('does not take a resume that came before it for one that comes after', async () => {
    const obstacle = join(server.directory, 'obstacle-3');
    await writeFile(obstacle, 'in the way');
    const handle = await release({ name: 'early', targets: [join(obstacle, 'releases')] });
    await handle.signal(resumeSignal);
    await waitForStatus(handle, 'waiting', (s) => s.waiting !== undefined);
    await handle.cancel();
    await expect(handle.result()).rejects.toBeInstanceOf(WorkflowFailedError);
  });
});
