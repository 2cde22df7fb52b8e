import { describe, expect, it } from 'vitest';
import { parseRecipe, type Recipe } from '../../config/recipe.ts';
import { WeldlineError } from '../../engine/errors.ts';

const START = `name: support
version: 1.2.0
base: { model: hf://org/base }
adapters: [{ id: support, model: ./support }]
`;

function read(text: string): Recipe {
  return parseRecipe(START + text, '/recipes/r.yaml').recipe;
}

function problemOf(text: string, start = START): string {
  try {
    parseRecipe(start + text, 'r.yaml');
  } catch (error) {
    if (error instanceof WeldlineError) return error.message;
    throw error;
  }
  throw new Error('the recipe was accepted');
}

describe('publish', () => {
  it('takes every target, with absolute paths and names in camel case', () => {
    const { publish } = read(`publish:
  - directory: { path: ./releases }
    aliases: [latest, production]
  - hub: { repo: org/support, private: true }
  - s3: { bucket: models, prefix: team/support, region: eu-west-1, endpoint: http://127.0.0.1:9000 }
  - oci: { repository: registry.example.com:5000/models/support, insecure: true }
  - ollama: { model: team/support }
    artefacts: [gguf-q4_k_m]
  - mlflow: { model: support, tracking_uri: https://mlflow.example.com, source: s3 }
`);
    expect(publish).toEqual([
      { directory: { path: '/recipes/releases' }, aliases: ['latest', 'production'] },
      { hub: { repo: 'org/support', private: true } },
      {
        s3: {
          bucket: 'models',
          prefix: 'team/support',
          region: 'eu-west-1',
          endpoint: 'http://127.0.0.1:9000',
        },
      },
      { oci: { repository: 'registry.example.com:5000/models/support', insecure: true } },
      { ollama: { model: 'team/support' }, artefacts: ['gguf-q4_k_m'] },
      {
        mlflow: { model: 'support', source: 's3', trackingUri: 'https://mlflow.example.com' },
      },
    ]);
  });

  it.each([
    ['no target', 'publish: [{ aliases: [latest] }]', '5:11 publish.0: a target names one of'],
    [
      'two targets in one entry',
      'publish: [{ directory: { path: a }, hub: { repo: o/r } }]',
      'publish.0: directory and hub are two targets',
    ],
    ['a target of a typo', 'publish: [{ hubb: { repo: o/r } }]', 'did you mean hub?'],
    ['a bucket with capitals', 'publish: [{ s3: { bucket: Models } }]', 'the name of a bucket'],
    [
      'a prefix that climbs',
      'publish: [{ s3: { bucket: models, prefix: a/../b } }]',
      'publish.0.s3.prefix: expected the prefix',
    ],
    [
      'an endpoint with a query',
      'publish: [{ s3: { bucket: models, endpoint: "http://h/?token=x" } }]',
      'without a password',
    ],
    [
      'MLflow alone',
      'publish: [{ mlflow: { model: m } }]',
      'publish.0.mlflow: MLflow registers where a model is and holds no files',
    ],
    [
      'MLflow on a target that is not there',
      'publish: [{ mlflow: { model: m, source: oci } }, { hub: { repo: o/r } }]',
      'add a target oci',
    ],
    [
      'a streamed release that is converted',
      'convert: [{ gguf: { quantization: [F16] } }]\npublish: [{ s3: { bucket: models, stream: true } }]',
      'publish.0.s3.stream: with stream the merged weights are never on this machine',
    ],
    [
      'a streamed release that goes elsewhere too',
      'publish: [{ s3: { bucket: models, stream: true } }, { directory: { path: a } }]',
      'publish.0.s3.stream: with stream',
    ],
    ['an alias like a version', 'publish: [{ hub: { repo: o/r }, aliases: [V1] }]', 'aliases.0'],
  ])('refuses %s', (_, text, problem) => {
    expect(problemOf(text)).toContain(problem);
  });
});

describe('base.fetch', () => {
  it('streams what is elsewhere', () => {
    const base = 'base: { model: s3://models/base, fetch: stream }';
    const recipe = parseRecipe(START.replace(/base: .*/, base), 'r.yaml').recipe;
    expect(recipe.base).toEqual({ model: 's3://models/base', fetch: 'stream' });
  });

  it('does not stream a directory', () => {
    const start = START.replace(/base: .*/, 'base: { model: ./base, fetch: stream }');
    expect(problemOf('', start)).toContain('base.fetch: stream is for bases at');
  });
});

it('keeps how a release is signed, and whether it carries its adapters', () => {
  expect(read('sign: keyless\narchive_adapters: false\n')).toMatchObject({
    sign: 'keyless',
    archiveAdapters: false,
  });
  expect(Object.keys(read(''))).not.toContain('archiveAdapters');
});
