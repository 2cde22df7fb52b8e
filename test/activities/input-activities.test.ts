import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { expect, it } from 'vitest';
import { createActivities } from '../../activities/create-activities.ts';
import { createLogger } from '../../workers/logger.ts';
import { dependencies } from '../../workers/main.ts';
import { writeFiles } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { adapterFiles, type TinyModel, tinyAdapter } from '../doubles/tiny-model.ts';
import { type RecipeChanges, recipeOf, setUpRelease } from '../harness/release-setup.ts';
import { startWebServer } from '../harness/web-server.ts';

async function run<T>(work: () => Promise<T>): Promise<T> {
  const environment = new MockActivityEnvironment(undefined, { logger: createLogger('error') });
  return environment.run(work);
}

/** A base, the adapter `tone` that was trained on `../first`, and that. */
async function setUpChain() {
  const tone = tinyAdapter({ seed: 3 });
  tone.config['base_model_name_or_path'] = '../first';
  const setup = await setUpRelease(await temporaryDirectory(), { adapter: tone });
  const first = join(setup.directory, 'first');
  await writeFiles(first, adapterFiles(tinyAdapter()));
  const activities = createActivities(dependencies(setup.environment));
  const preflight = async (changes: RecipeChanges) => {
    const { recipe, digest: recipeDigest } = recipeOf(setup, changes);
    const context = { recipe, recipeDigest };
    const inputs = await run(() => activities.resolveInputs(context));
    const directories = recipe.adapters.map(({ model }) => model);
    return run(() => activities.preflight(context, inputs, ...directories));
  };
  return { setup, first, preflight };
}

it('refuses an adapter without the one that it was trained on, and takes both in their order', async () => {
  const { setup, first, preflight } = await setUpChain();
  await expect(preflight({})).rejects.toMatchObject({
    type: 'adapter.chain',
    nonRetryable: true,
    message: expect.stringContaining(`model: ${first}`),
  });
  const both = await preflight({
    adapter: first,
    others: [{ id: 'second', model: setup.adapter }],
    combination: 'sequential',
  });
  expect(both).toMatchObject({ tensorsMerged: 4, warnings: [] });
});

it('knows an adapter in a pickle by what is in the pickle', async () => {
  const adapter: TinyModel = tinyAdapter();
  adapter.files['adapter_model.safetensors'] = null;
  adapter.files['adapter_model.bin'] = 'one';
  const setup = await setUpRelease(await temporaryDirectory(), { adapter });
  const activities = createActivities(dependencies(setup.environment));
  const { recipe, digest: recipeDigest } = recipeOf(setup);
  const resolve = () => run(() => activities.resolveInputs({ recipe, recipeDigest }));
  const before = await resolve();
  await writeFile(join(setup.adapter, 'adapter_model.bin'), 'other');
  expect((await resolve()).adapter).not.toEqual(before.adapter);
});

it('takes models at URLs, and keeps them below its home', async () => {
  const setup = await setUpRelease(await temporaryDirectory());
  const server = await startWebServer({ root: setup.directory });
  try {
    const activities = createActivities(dependencies(setup.environment));
    const changes = { base: `${server.origin}/tiny`, adapter: `${server.origin}/tone` };
    const { recipe, digest: recipeDigest } = recipeOf(setup, changes);
    const context = { recipe, recipeDigest };
    const inputs = await run(() => activities.resolveInputs(context));
    expect(inputs.base).toMatchObject({ kind: 'remote', model: { uri: changes.base } });
    expect(inputs.artefact).toMatch(/^merged-tiny-1\.0\.0-adapter-tone-[0-9a-f]{8}$/);
    const adapter = await run(() => activities.fetchInput(inputs.adapter));
    expect(adapter.startsWith(join(setup.home, 'cache', 'models', 'http'))).toBe(true);
    const preflight = () => run(() => activities.preflight(context, inputs, adapter));
    const { downloadBytes, tensorsMerged } = await preflight();
    expect(tensorsMerged).toBe(4);
    expect(downloadBytes).toBeGreaterThan(100_000);
    await run(() => activities.fetchInput(inputs.base));
    expect(await preflight()).toMatchObject({ downloadBytes: 0 });
  } finally {
    await server.close();
  }
});
