/** That a recipe does not send to targets what is never made, or what they cannot hold. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkTargets, plannedTargets } from '../../activities/check-targets.ts';
import { readEnvironment } from '../../config/environment.ts';
import { parseRecipe } from '../../config/recipe.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

function recipeIn(directory: string, targets: readonly object[], convert?: readonly object[]) {
  const text = JSON.stringify({
    name: 'tone',
    version: '1.0.0',
    base: { model: './base' },
    adapters: [{ id: 'tone', model: './adapter' }],
    ...(convert && { convert }),
    publish: targets,
  });
  return parseRecipe(text, join(directory, 'recipe.yaml')).recipe;
}

async function check(targets: readonly object[], convert?: readonly object[]): Promise<void> {
  const directory = await temporaryDirectory();
  const recipe = recipeIn(directory, targets, convert);
  const environment = readEnvironment({ WELDLINE_HOME: directory });
  const { signal } = new AbortController();
  await checkTargets(recipe, 'merged-base-1.0.0-adapter-tone-1', undefined, environment, signal);
}

const GGUF = [{ gguf: { quantization: ['Q8_0'] } }];
const HUB = { hub: { repo: 'acme/tone' } };
const MLFLOW = { model: 'tone', tracking_uri: 'http://127.0.0.1:9' };

test.each([
  [
    'an artefact that nothing makes',
    [{ directory: { path: './out' }, artefacts: ['gguf-q4_k_m'] }],
    GGUF,
    'publishes "gguf-q4_k_m", which it does not make: there is merged, gguf-q8_0',
  ],
  ['Ollama without a GGUF', [{ ollama: { model: 'acme/tone' } }], undefined, 'Ollama takes GGUF'],
  [
    'Ollama with the checkpoint',
    [{ ollama: { model: 'acme/tone' }, artefacts: ['gguf-q8_0', 'merged'] }],
    GGUF,
    'cannot hold merged',
  ],
  [
    'MLflow with what is published nowhere',
    [
      { ...HUB, artefacts: ['merged'] },
      { mlflow: MLFLOW, artefacts: ['gguf-q8_0'] },
    ],
    GGUF,
    'registers "gguf-q8_0" in MLflow and publishes it nowhere',
  ],
])('%s is refused before anything is merged', async (_, targets, convert, message) => {
  await expect(check(targets, convert)).rejects.toMatchObject({
    code: 'recipe.invalid',
    message: expect.stringContaining(message),
  });
});

test('a directory takes what it names', async () => {
  await check([{ directory: { path: './out' }, artefacts: ['merged', 'gguf-q8_0'] }], GGUF);
});

test('what goes where is what each can hold, or point at', () => {
  const targets = [
    { ...HUB, artefacts: ['merged'] },
    { mlflow: MLFLOW },
    { ollama: { model: 'acme/tone' } },
    { directory: { path: './out' } },
  ];
  const planned = plannedTargets(recipeIn('/somewhere', targets, GGUF));
  expect(planned.map(({ parts }) => parts)).toEqual([
    ['merged'],
    ['merged'],
    ['gguf-q8_0'],
    ['merged', 'gguf-q8_0'],
  ]);
});
