import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { WorkflowFailedError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { mergeDirectories, readFiles, writeFiles } from '../doubles/merge-directories.ts';
import { adapterFiles, tinyAdapter } from '../doubles/tiny-model.ts';
import {
  type RecipeChanges,
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import { startRelease, startTestWorkers, type TestRelease } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';

let server: TestServer;
let setup: ReleaseSetup;
let workers: RunningWorkers;
let style: string;

beforeAll(async () => {
  server = await startTestServer();
  setup = await setUpRelease(join(server.directory, 'release'));
  style = join(setup.directory, 'style');
  await writeFiles(style, adapterFiles(tinyAdapter({ rank: 9, seed: 3 })));
  workers = await startTestWorkers(server, setup.environment);
});
afterAll(async () => {
  await workers.stop();
  await server.stop();
});

function release(changes: RecipeChanges): Promise<TestRelease> {
  return startRelease(server.client, releaseInput(recipeOf(setup, changes)));
}

describe('a release of two adapters', () => {
  it('is their sum, and names both wherever it speaks of its inputs', async () => {
    const handle = await release({
      others: [{ id: 'style', model: style, weight: -0.5, training_run: 'run-7' }],
      combination: 'linear',
    });
    const result = await handle.result();
    expect(result.artefact).toMatch(/^merged-tiny-1\.0\.0-adapter-tone-style-[0-9a-f]{8}$/);
    const { location = '' } = result.publications[0] ?? {};

    const facts = JSON.parse(await readFile(join(location, 'release.json'), 'utf8'));
    expect(facts.inputs.map(({ id, model }: Record<string, string>) => [id, model])).toEqual([
      ['base', 'tiny'],
      // In the order in which they are added.
      ['style', 'style'],
      ['tone', 'tone'],
    ]);
    expect(facts.inputs[1].trainingRun).toBe('run-7');
    expect(facts.options).toEqual({ combination: 'linear', weights: '-0.5, 1' });
    expect(facts.rules).toHaveLength(2);
    const card = await readFile(join(location, 'README.md'), 'utf8');
    expect(card).toContain('2 LoRA adapters merged into their base model');
    expect(card).toContain('| adapter `style` | style, training run run-7 |');
    expect(card).toContain('| combined | linear, weights -0.5, 1 |');
    // What was measured comes out of the workspace: a history holds warnings only.
    expect(facts.insight).toMatchObject({
      retention: { merged: 4, measured: 4, worst: { length: 4 } },
      conflicts: { measured: 4, adapters: [{ id: 'style' }, { id: 'tone' }] },
    });
    expect(card).toMatch(/^- \d+\.\d % of the delta survives rounding \(4 of 4 /m);
    expect(card).toMatch(/^- style and tone: 4 tensors in common, cosine -?0\.\d\d, /m);

    const output = join(setup.directory, 'directly');
    await mergeDirectories({
      base: setup.base,
      adapter: style,
      others: { tone: setup.adapter },
      output,
      options: { combination: { method: 'linear', weights: [-0.5, 1] } },
    });
    const directly = await readFiles(output);
    const released = await readFiles(location);
    for (const [name, bytes] of directly) {
      if (name.endsWith('.safetensors')) expect(released.get(name)?.equals(bytes), name).toBe(true);
    }
  });

  it('has another name with other weights', async () => {
    const names = new Set<string>();
    for (const weight of [1, 2]) {
      const others = [{ id: 'style', model: style, weight }];
      const changes = { others, combination: 'linear', name: `w${weight}`, targets: [] };
      names.add((await (await release(changes)).result()).artefact);
    }
    expect(names.size).toBe(2);
  });

  it('fails before the base is fetched where they contradict each other', async () => {
    const one = join(setup.directory, 'one');
    const two = join(setup.directory, 'two');
    for (const [path, seed] of [
      [one, 4],
      [two, 5],
    ] as const) {
      const adapter = tinyAdapter({ seed });
      adapter.tensors.push({
        name: 'base_model.model.lm_head.weight',
        dtype: 'BF16',
        shape: [100, 64],
        data: new Uint8Array(100 * 64 * 2),
      });
      await writeFiles(path, adapterFiles(adapter));
    }
    const others = [{ id: 'two', model: two }];
    const handle = await release({ adapter: one, others, combination: 'sequential', name: 'no' });
    const error: unknown = await handle.result().catch((reason: unknown) => reason);
    expect((error as WorkflowFailedError).cause).toMatchObject({
      type: 'adapter.contradiction',
      message: expect.stringContaining('"lm_head.weight"'),
    });
  });
});
