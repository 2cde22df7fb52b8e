import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { loadRecipe, mergeOptionsOf, parseRecipe } from '../../config/recipe.ts';

const COMPLETE = `name: support-assistant
version: 1.2.0
base:
  model: hf://HuggingFaceTB/SmolLM2-135M-Instruct@main
adapters:
  - id: support
    model: ./adapters/support
    weight: 1.0
    training_run: run-8841
    version: v3
combination: { method: linear }
merge: { dtype: bfloat16, max_shard_size: 5GB, memory_budget: 512MiB, threads: 2 }
publish:
  - directory: { path: ../releases }
`;

const MINIMAL = {
  name: 'a',
  version: '1.0.0',
  base: { model: '/models/base' },
  adapters: [{ id: 'b', model: 'adapter' }],
};

describe('parseRecipe', () => {
  it('reads a complete recipe, with paths relative to it and sizes in bytes', () => {
    expect(parseRecipe(COMPLETE, '/recipes/support.yaml')).toEqual({
      recipe: {
        name: 'support-assistant',
        version: '1.2.0',
        base: { model: 'hf://HuggingFaceTB/SmolLM2-135M-Instruct', revision: 'main' },
        adapters: [
          {
            id: 'support',
            model: '/recipes/adapters/support',
            weight: 1,
            version: 'v3',
            trainingRun: 'run-8841',
          },
        ],
        combination: { method: 'linear' },
        merge: {
          dtype: 'bfloat16',
          shardBytesMax: 5_000_000_000,
          threads: 2,
          memoryBudgetBytes: 536_870_912,
        },
        publish: [{ directory: { path: '/releases' } }],
      },
      digest: expect.stringMatching(/^[0-9a-f]{64}$/),
      path: '/recipes/support.yaml',
    });
  });

  it('fills in the defaults of a minimal one', () => {
    expect(parseRecipe(stringify(MINIMAL), '/r/recipe.yaml').recipe).toEqual({
      name: 'a',
      version: '1.0.0',
      base: { model: '/models/base' },
      adapters: [{ id: 'b', model: '/r/adapter', weight: 1 }],
      combination: { method: 'linear' },
      merge: {},
      publish: [],
    });
  });

  it('reads several adapters and how they are combined', () => {
    const [first] = MINIMAL.adapters;
    const second = { id: 'c', model: './c', weight: -0.5 };
    const text = (method: string, ...adapters: object[]) =>
      stringify({ ...MINIMAL, adapters, combination: { method } });
    const { recipe } = parseRecipe(text('cat', first ?? {}, second), '/r/recipe.yaml');
    expect(recipe.adapters.map(({ id, model, weight }) => [id, model, weight])).toEqual([
      ['b', '/r/adapter', 1],
      ['c', '/r/c', -0.5],
    ]);
    const weights = [1, -0.5];
    expect(mergeOptionsOf(recipe)).toEqual({ combination: { method: 'cat', weights } });
    const plain = text('sequential', first ?? {}, { id: 'c', model: './c' });
    expect(mergeOptionsOf(parseRecipe(plain, '/r/recipe.yaml').recipe)).toEqual({
      combination: { method: 'sequential' },
    });
  });

  it('reads the rank of svd, and what methods of PEFT take', () => {
    const recipeOf = (combination: object) =>
      parseRecipe(stringify({ ...MINIMAL, combination }), '/r/recipe.yaml').recipe;
    expect(mergeOptionsOf(recipeOf({ method: 'svd', rank: 16 }))).toEqual({
      combination: { method: 'svd', parameters: { rank: 16 }, weights: [1] },
    });
    const ties = { method: 'peft_ties', density: 0.3, majority_sign: 'frequency' };
    expect(mergeOptionsOf(recipeOf(ties)).combination?.parameters).toEqual({
      density: [0.3],
      majoritySign: 'frequency',
    });
  });

  it('reads how adapters are thinned out: by a density for all, or one of its own', () => {
    const adapters = [...MINIMAL.adapters, { id: 'c', model: './c', density: 0.3 }];
    const combination = { method: 'ties', density: 0.2, majority_sign: 'frequency' };
    const { recipe } = parseRecipe(stringify({ ...MINIMAL, adapters, combination }), '/r/a.yaml');
    expect(mergeOptionsOf(recipe)).toEqual({
      combination: {
        method: 'ties',
        weights: [1, 1],
        parameters: { density: [0.2, 0.3], majoritySign: 'frequency' },
      },
    });
    const random = { method: 'dare_linear', density: 0.5, seed: 7 };
    const { recipe: dare } = parseRecipe(
      stringify({ ...MINIMAL, combination: random }),
      '/r/a.yaml',
    );
    expect(dare.combination.parameters).toEqual({ density: [0.5], seed: 7 });
  });

  it('keeps what is said of the base about the merge with the merge', () => {
    const base = { ...MINIMAL.base, merge_onto: 'dequantized' };
    const { recipe } = parseRecipe(stringify({ ...MINIMAL, base }), '/r/recipe.yaml');
    expect(recipe.base).toEqual(MINIMAL.base);
    expect(recipe.merge).toEqual({ mergeOnto: 'dequantized' });
  });

  it('reads JSON, tabs and all, as the same recipe', () => {
    const json = JSON.stringify(MINIMAL, undefined, '\t');
    expect(parseRecipe(json, '/r/recipe.json').digest).toBe(
      parseRecipe(stringify(MINIMAL), '/r/recipe.yaml').digest,
    );
  });

  it('takes ~/ for the home directory and a separate revision for a pinned one', () => {
    const base = { model: 'hf://org/name', revision: 'v1' };
    const adapters = [{ id: 'b', model: '~/adapter' }];
    const { recipe } = parseRecipe(stringify({ ...MINIMAL, base, adapters }), '/r/x.yaml');
    expect(recipe.base).toEqual(base);
    expect(recipe.adapters[0].model).toBe(join(homedir(), 'adapter'));
  });

  it('follows a few aliases', () => {
    const text = `${stringify({ name: 'a', version: '1.0', base: { model: 'x' } })}
adapters: [{ id: &id b, model: *id }]`;
    expect(parseRecipe(text, '/r/x.yaml').recipe.adapters[0].model).toBe('/r/b');
  });

  it('gives a digest that depends on neither the order of keys nor the place of the file', () => {
    const { digest } = parseRecipe(COMPLETE, '/a/x.yaml');
    const recipe = {
      publish: [{ directory: { path: '../releases' } }],
      merge: { threads: 2, memory_budget: '512MiB', max_shard_size: '5GB', dtype: 'bfloat16' },
      combination: { method: 'linear' },
      adapters: [
        {
          version: 'v3',
          training_run: 'run-8841',
          weight: 1,
          model: './adapters/support',
          id: 'support',
        },
      ],
      base: { model: 'hf://HuggingFaceTB/SmolLM2-135M-Instruct@main' },
      version: '1.2.0',
      name: 'support-assistant',
    };
    fc.assert(
      fc.property(
        fc.shuffledSubarray(Object.entries(recipe), { minLength: 7 }),
        fc.boolean(),
        (entries, asJson) => {
          const document = Object.fromEntries(entries);
          const text = asJson ? JSON.stringify(document) : stringify(document);
          expect(parseRecipe(text, '/b/y.yaml').digest).toBe(digest);
        },
      ),
    );
    expect(parseRecipe(COMPLETE.replace('1.2.0', '1.2.1'), '/a/x.yaml').digest).not.toBe(digest);
  });
});

describe('loadRecipe', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weldline-recipe-'));
  });
  afterAll(async () => {
    await rm(directory, { recursive: true });
  });

  it('reads a file', async () => {
    const path = join(directory, 'recipe.yaml');
    await writeFile(path, COMPLETE);
    expect(await loadRecipe(path)).toEqual(parseRecipe(COMPLETE, path));
  });

  it('says which file is missing or is a directory', async () => {
    await expect(loadRecipe(join(directory, 'none.yaml'))).rejects.toMatchObject({
      code: 'recipe.not-found',
      message: expect.stringContaining(`${directory}/none.yaml does not exist`),
    });
    await expect(loadRecipe(directory)).rejects.toMatchObject({
      code: 'recipe.not-found',
      message: expect.stringContaining('is a directory, not a file'),
    });
  });

  it('refuses a file too large, one that never ends, and one that is not UTF-8', async () => {
    const path = join(directory, 'bad.yaml');
    await writeFile(path, '#'.repeat(256 * 1024 + 1));
    await expect(loadRecipe(path)).rejects.toMatchObject({
      code: 'recipe.invalid',
      message: expect.stringContaining('larger than 256 KiB'),
    });
    await expect(loadRecipe('/dev/zero')).rejects.toMatchObject({ code: 'recipe.invalid' });
    await writeFile(path, Buffer.from([0x6e, 0xff, 0xfe]));
    await expect(loadRecipe(path)).rejects.toMatchObject({
      code: 'recipe.syntax',
      message: expect.stringContaining('not UTF-8'),
    });
  });
});
