import { expect, test } from 'vitest';
import { publicRecipe } from '../../activities/attestation-facts.ts';
import { parseRecipe } from '../../config/recipe.ts';

test('what is published of a recipe names no path and no server of those who made it', () => {
  const text = JSON.stringify({
    name: 'tone',
    version: '1.0.0',
    base: { model: 'hf://org/base', revision: 'main' },
    adapters: [{ id: 'tone', model: './adapters/canary/tone' }],
    convert: [{ gptq: { calibration: './canary/calibration.jsonl' } }],
    evaluate: {
      suites: [{ id: 'tone', data: './canary/tone.jsonl' }],
      endpoint: { url: 'http://canary.internal:8000', models: { merged: 'm' } },
    },
    publish: [
      { s3: { bucket: 'models', endpoint: 'http://canary.internal:9000' } },
      { mlflow: { model: 'tone', tracking_uri: 'http://canary.internal:5000' } },
      { ollama: { model: 'tone', endpoint: 'http://canary.internal:11434' } },
      { directory: { path: './canary/releases' } },
    ],
  });
  const { recipe } = parseRecipe(text, '/canary/recipe.yaml');
  const shown = publicRecipe(recipe);
  expect(JSON.stringify(shown)).not.toContain('canary');
  expect(shown).toMatchObject({
    base: { model: 'hf://org/base', revision: 'main' },
    adapters: [{ id: 'tone', model: 'tone' }],
    publish: [{ s3: { bucket: 'models' } }, {}, {}, { directory: { path: 'releases' } }],
  });
});
