import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { previewMerge } from '../../../engine/plan/plan-merge.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { makeMlx } from '../../doubles/foreign-adapters.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import { mergeDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  alter,
  baseFiles,
  type FloatName,
  randomTensor,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import type { TestTensor } from '../../doubles/write-safetensors.ts';
import { loadTensors } from '../../golden/golden-case.ts';
import { planFor, tensorOf } from './plan-tiny.ts';

const EMBEDDING = 'model.embed_tokens.weight';
const HEAD = 'lm_head.weight';
const PREFIX = 'base_model.model.';
const UNTIED = [{ path: ['tie_word_embeddings'], value: false }];

const tied = (): TinyModel => tinyBase({ tied: true });

/** Tied, with a head on disk that no loader uses. */
function tiedWithHead(): TinyModel {
  const base = tinyBase();
  base.config['tie_word_embeddings'] = true;
  return base;
}

const namesOf = (plan: Awaited<ReturnType<typeof planFor>>): string[] =>
  plan.shards.flatMap(({ tensors }) => tensors.map(({ name }) => name));

/** Both sides, saved in full, of equal values. */
function savedTwice(): TinyModel {
  const adapter = tinyAdapter();
  const saved = randomTensor(new Random(5), `${PREFIX}${EMBEDDING}`, 'F32', [100, 64]);
  adapter.tensors.push(saved, { ...saved, name: `${PREFIX}${HEAD}` });
  return adapter;
}

/** Changes the last value of a tensor. */
function spoil(adapter: TinyModel, name: string): void {
  const { data } = adapter.tensors.find((each) => each.name === name) as TestTensor;
  const changed = Uint8Array.from(data);
  changed[changed.length - 2]! ^= 1;
  alter(adapter, name, { data: changed });
}

describe('both sides of a tied pair, trained in full', () => {
  test('stay one tensor if they are equal, byte for byte', async () => {
    const plan = await planFor(tied(), savedTwice());
    expect(tensorOf(plan, EMBEDDING).from.input).toBe('a');
    expect(namesOf(plan)).not.toContain(HEAD);
    expect([plan.configEdits, plan.warnings]).toEqual([[], []]);
    const both = await planFor(tiedWithHead(), savedTwice());
    expect([EMBEDDING, HEAD].map((name) => tensorOf(both, name).from.input)).toEqual(['a', 'a']);
    expect(both.configEdits).toEqual([]);
  });

  test('become two if they differ, or if one of them is changed further', async () => {
    const adapter = savedTwice();
    spoil(adapter, `${PREFIX}${HEAD}`);
    const plan = await planFor(tied(), adapter);
    expect(tensorOf(plan, HEAD).from.offset).not.toBe(tensorOf(plan, EMBEDDING).from.offset);
    expect(plan.configEdits).toEqual(UNTIED);

    const random = new Random(6);
    const more = savedTwice();
    more.tensors.push(
      randomTensor(random, `${PREFIX}lm_head.lora_A.weight`, 'F32', [4, 64]),
      randomTensor(random, `${PREFIX}lm_head.lora_B.weight`, 'F32', [100, 4]),
    );
    expect((await planFor(tied(), more)).configEdits).toEqual(UNTIED);
  });

  test('and as one, are one tensor also where only the embedding was saved', async () => {
    const adapter = savedTwice();
    adapter.config['ensure_weight_tying'] = true;
    alter(adapter, `${PREFIX}${HEAD}`);
    const plan = await planFor(tiedWithHead(), adapter);
    expect(tensorOf(plan, HEAD).from).toEqual(tensorOf(plan, EMBEDDING).from);
    expect(plan.configEdits).toEqual([]);
  });
});

const STEM = `${PREFIX}model.embed_tokens.lora_embedding_`;

/** The factors of a head that PEFT ties to an embedding's. */
function transposed(tensor: TestTensor, name: string): TestTensor {
  const [rows = 0, columns = 0] = tensor.shape;
  const size = tensor.data.length / (rows * columns);
  const data = Buffer.concat(
    Array.from({ length: rows * columns }, (_, at) => {
      const from = ((at % rows) * columns + Math.floor(at / rows)) * size;
      return tensor.data.subarray(from, from + size);
    }),
  );
  return { ...tensor, name, shape: [columns, rows], data: Uint8Array.from(data) };
}

/** LoRA on both sides of a tied pair as PEFT trains and saves it with `ensure_weight_tying`. */
function trainedAsOne(dtype: FloatName = 'F32'): TinyModel {
  const adapter = tinyAdapter({ dtype });
  adapter.config['ensure_weight_tying'] = true;
  const random = new Random(7);
  const a = randomTensor(random, `${STEM}A`, dtype, [4, 100]);
  const b = randomTensor(random, `${STEM}B`, dtype, [64, 4]);
  adapter.tensors.push(
    ...[a, b, transposed(b, `${PREFIX}lm_head.lora_A.weight`)],
    transposed(a, `${PREFIX}lm_head.lora_B.weight`),
  );
  return adapter;
}

describe('LoRA on both sides of a tied pair, trained as one', () => {
  test.each<FloatName>(['F32', 'BF16'])('changes the one tensor, once (%s)', async (dtype) => {
    const plan = await planFor(tied(), trainedAsOne(dtype));
    const { deltas } = tensorOf(plan, EMBEDDING);
    expect(deltas).toMatchObject([{ module: 'model.embed_tokens', transposed: true, scaling: 2 }]);
    expect(namesOf(plan)).not.toContain(HEAD);
    expect([plan.configEdits, plan.warnings]).toEqual([[], []]);
    const both = await planFor(tiedWithHead(), trainedAsOne(dtype));
    expect(tensorOf(both, HEAD).deltas).toEqual(tensorOf(both, EMBEDDING).deltas);
  });

  test('is what both sides have where another adapter unties them', async () => {
    const head = tinyAdapter({ seed: 8 });
    const random = new Random(9);
    head.tensors.push(
      randomTensor(random, `${PREFIX}lm_head.lora_A.weight`, 'F32', [4, 64]),
      randomTensor(random, `${PREFIX}lm_head.lora_B.weight`, 'F32', [100, 4]),
    );
    const inputs = Object.entries({ a: trainedAsOne(), b: head }).map(([id, model]) => ({
      id,
      files: memoryFiles(id, adapterFiles(model)).files,
    }));
    const options = { combination: { method: 'linear' } } as const;
    const base = memoryFiles('base', baseFiles(tied())).files;
    const { shards } = await previewMerge(base, inputs, options);
    const addedTo = (name: string) =>
      shards
        .flatMap(({ tensors }) => tensors)
        .find((each) => each.name === name)
        ?.deltas?.map(({ adapter, module }) => `${adapter} ${module}`);
    expect(addedTo(EMBEDDING)).toEqual(['a model.embed_tokens']);
    expect(addedTo(HEAD)).toEqual(['a model.embed_tokens', 'b lm_head']);
  });

  test.each<[string, (adapter: TinyModel) => void]>([
    ['with other values', (adapter) => spoil(adapter, `${PREFIX}lm_head.lora_B.weight`)],
    ['with another A', (adapter) => spoil(adapter, `${PREFIX}lm_head.lora_A.weight`)],
    [
      'with another strength',
      ({ config }) => {
        config['alpha_pattern'] = { lm_head: 4 };
      },
    ],
    [
      'that were lost',
      (adapter) => {
        adapter.tensors = adapter.tensors.filter(({ name }) => !name.includes('lm_head'));
      },
    ],
    [
      'without those of the embedding',
      (adapter) => {
        adapter.tensors = adapter.tensors.filter(({ name }) => !name.includes('embed_tokens'));
      },
    ],
  ])('is refused for factors of the head %s', async (_what, change) => {
    const adapter = trainedAsOne();
    change(adapter);
    await expect(planFor(tied(), adapter)).rejects.toMatchObject({
      code: 'adapter.unsupported-feature',
      message: expect.stringMatching(/ensure_weight_tying.*embed_tokens.*lm_head/),
    });
  });

  test('is merged into both where the base is not tied', async () => {
    const plan = await planFor(tinyBase(), trainedAsOne());
    expect(tensorOf(plan, EMBEDDING).deltas?.[0]?.module).toBe('model.embed_tokens');
    expect(tensorOf(plan, HEAD).deltas?.[0]?.module).toBe('lm_head');
  });

  test('with MLX, which saves it once', async () => {
    const adapter = tinyAdapter();
    makeMlx(adapter, { lora_parameters: { rank: 4, scale: 2 } }, (tensors) => [
      ...tensors,
      randomTensor(new Random(3), 'model.embed_tokens.lora_a', 'F32', [100, 4]),
      randomTensor(new Random(4), 'model.embed_tokens.lora_b', 'F32', [4, 64]),
    ]);
    const plan = await planFor(tied(), adapter);
    expect(tensorOf(plan, EMBEDDING).deltas).toMatchObject([{ transposed: false, scaling: 2 }]);
    expect(namesOf(plan)).not.toContain(HEAD);
    expect(plan.configEdits).toEqual([]);
  });

  test('gives what LoRA on the embedding alone gives it, verified', async () => {
    const root = await temporaryDirectory();
    const base = join(root, 'base');
    await writeFiles(base, baseFiles(tied()));
    const alone = trainedAsOne();
    alone.config['ensure_weight_tying'] = false;
    alone.tensors = alone.tensors.filter(({ name }) => !name.includes('lm_head'));
    const merged: Uint8Array[] = [];
    for (const [name, model] of Object.entries({ one: trainedAsOne(), alone })) {
      const [adapter, output] = [join(root, name), join(root, `${name}-merged`)];
      await writeFiles(adapter, adapterFiles(model));
      const { plan } = await mergeDirectories({ base, adapter, output });
      const files = await openModelDirectory(output);
      await verifyMerge({
        directory: output,
        files,
        recompute: { plan, roots: { base, a: adapter } },
      });
      merged.push((await loadTensors(output, ['model.safetensors'])).get(EMBEDDING)!.bytes);
    }
    expect(merged[0]).toEqual(merged[1]);
  });
});
