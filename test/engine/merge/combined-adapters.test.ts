import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { combinedShard } from '../../../engine/merge/combined-shard.ts';
import { chooseResources, resourcesFor } from '../../../engine/merge/resources.ts';
import type { Combination } from '../../../engine/plan/combination.ts';
import { outputBytes } from '../../../engine/plan/disk-space.ts';
import { type Plan, planDigest } from '../../../engine/plan/plan.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import {
  type Directories,
  mergeDirectories,
  planDirectories,
} from '../../doubles/merge-directories.ts';
import { Random } from '../../doubles/random.ts';
import { mergedWeights, writeModels } from '../../doubles/several-models.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { randomTensor, type TinyModel, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';
import { loadTensors } from '../../golden/golden-case.ts';

const TARGETS = ['self_attn.q_proj', 'self_attn.v_proj', 'mlp.down_proj'] as const;
const Q_PROJ = 'model.layers.0.self_attn.q_proj.weight';
const EMBEDDING = 'model.embed_tokens.weight';
const SVD = {
  combination: { method: 'svd', weights: [1, -0.5], parameters: { rank: 3 } },
} as const;

/** One of each way in which factors are combined. */
const COMBINATIONS: readonly Combination[] = [
  { method: 'svd', weights: [1, -0.5], parameters: { rank: 3 } },
  { method: 'peft_linear', weights: [1, -0.5] },
  { method: 'peft_ties', weights: [1, 2], parameters: { density: 0.5 } },
  { method: 'peft_magnitude_prune', weights: [0.3, 1], parameters: { density: 0.25 } },
];

/** A tiny adapter that is also on the embedding, whose factors are transposed. */
function withEmbedding(seed: number, rank = 4): TinyModel {
  const adapter = tinyAdapter({ targets: TARGETS, seed, rank });
  const random = new Random(seed + 100);
  const stem = 'base_model.model.model.embed_tokens.lora_embedding_';
  adapter.tensors.push(randomTensor(random, `${stem}A`, 'F32', [rank, 100]));
  adapter.tensors.push(randomTensor(random, `${stem}B`, 'F32', [64, rank]));
  return adapter;
}

function tensorsOf(plan: Plan) {
  return plan.shards.flatMap(({ tensors }) => tensors);
}

/** Merges into float32, and returns what was added to a weight. */
async function deltaOf(inputs: Directories, combination: Combination, name: string) {
  const output = join(await temporaryDirectory(), 'merged');
  await mergeDirectories({ ...inputs, output, options: { combination } });
  const [base, merged] = await Promise.all(
    [inputs.base, output].map(async (directory) => {
      const tensor = (await loadTensors(directory, ['model.safetensors'])).get(name);
      return decodeTensor(tensor?.bytes ?? new Uint8Array(), 'F32');
    }),
  );
  return merged!.map((value, i) => value - base![i]!);
}

test.each(COMBINATIONS)('$method: threads and windows make no difference', async (combination) => {
  const inputs = await writeModels(tinyBase(), [withEmbedding(2), withEmbedding(3)]);
  const options = { combination };
  const whole = await mergedWeights(inputs, options, { threads: 1, windowBytes: 4_194_304 });
  const cut = await mergedWeights(inputs, options, { threads: 3, windowBytes: 4096 });
  expect(cut.equals(whole)).toBe(true);
});

test('a merge that was stopped goes on to the same bytes, and leaves no factors behind', async () => {
  const inputs = await writeModels(tinyBase(), [withEmbedding(2), withEmbedding(3)]);
  const whole = await mergedWeights(inputs, SVD);
  const root = await temporaryDirectory();
  const output = join(root, 'merged');
  const controller = new AbortController();
  const stopped = mergeDirectories({
    ...inputs,
    output,
    options: SVD,
    windowBytes: 4096,
    signal: controller.signal,
    onProgress: ({ bytesDone }) => {
      if (bytesDone > 20_000) controller.abort(new Error('stopped'));
    },
  });
  await expect(stopped).rejects.toThrow('stopped');
  const [staging = ''] = await readdir(root);
  const left = await readdir(join(root, staging), { recursive: true });
  expect(left.filter((name) => name.includes('factors'))).toEqual([]);
  const { plan } = await mergeDirectories({ ...inputs, output, options: SVD, threads: 2 });
  const files = await openModelDirectory(output);
  const roots = { base: inputs.base, a: inputs.adapter, ...inputs.others };
  await verifyMerge({ directory: output, files, recompute: { plan, roots } });
  const merged = await loadTensors(output, ['model.safetensors']);
  const last = [...merged.values()].at(-1)?.bytes ?? Buffer.alloc(0);
  expect(whole.subarray(-last.length).equals(last)).toBe(true);
  expect(await readdir(root)).toEqual(['merged']);
});

test('svd of a rank that cuts nothing off is the exact sum, and the plan that of linear', async () => {
  const inputs = await writeModels(tinyBase(), [tinyAdapter(), tinyAdapter({ rank: 7, seed: 3 })]);
  const digestFor = async (combination: Combination, from: Directories = inputs) =>
    planDigest(await planDirectories(from, { combination }));
  const weights = [1, -2];
  const linear = await digestFor({ method: 'linear', weights });
  expect(await digestFor({ method: 'svd', weights, parameters: { rank: 11 } })).toBe(linear);
  expect(await digestFor({ method: 'svd', weights, parameters: { rank: 10 } })).not.toBe(linear);
  expect(await digestFor({ method: 'peft_svd', weights, parameters: { rank: 11 } })).toBe(linear);
  // It warns of what PEFT does besides.
  const { shards } = await planDirectories(inputs, {
    combination: { method: 'peft_cat', weights },
  });
  const sum = await planDirectories(inputs, { combination: { method: 'linear', weights } });
  expect(shards).toEqual(sum.shards);
  // v_proj has 32 rows: no rank is higher.
  const wide = await writeModels(tinyBase(), [
    tinyAdapter({ rank: 40, targets: ['self_attn.v_proj'] }),
    tinyAdapter({ rank: 40, targets: ['self_attn.v_proj'], seed: 3 }),
  ]);
  expect(await digestFor({ method: 'svd', parameters: { rank: 32 } }, wide)).toBe(
    await digestFor({ method: 'linear' }, wide),
  );
});

test('one adapter of weight 1 is that adapter, unless svd cuts it', async () => {
  const inputs = await writeModels(tinyBase(), [tinyAdapter({ rank: 6 })]);
  const plain = planDigest(await planDirectories(inputs));
  const kept: Combination[] = [
    { method: 'svd' },
    { method: 'svd', parameters: { rank: 6 } },
    { method: 'peft_linear' },
    { method: 'peft_cat' },
    { method: 'peft_svd', parameters: { rank: 2 } },
    { method: 'peft_ties', parameters: { density: 0.5 } },
    { method: 'peft_magnitude_prune', parameters: { density: 0.5 } },
  ];
  for (const combination of kept) {
    expect(planDigest(await planDirectories(inputs, { combination }))).toBe(plain);
  }
  const combination = { method: 'svd', parameters: { rank: 2 } } as const;
  const cut = await planDirectories(inputs, { combination });
  expect(planDigest(cut)).not.toBe(plain);
  expect(cut.options.combination).toEqual({ method: 'svd', weights: [1], parameters: { rank: 2 } });
  await mergedWeights(inputs, { combination });
});

test('two adapters of rank 1 with weights 1 and -1 have no cross terms by svd, and do by PEFT', async () => {
  const adapters = [1, 2].map((seed) => tinyAdapter({ rank: 1, seed }));
  const inputs = await writeModels(tinyBase({ dtype: 'F32' }), adapters);
  const weights = [1, -1];
  const exact = await deltaOf(inputs, { method: 'linear', weights }, Q_PROJ);
  const length = Math.hypot(...exact);
  const apart = async (combination: Combination): Promise<number> => {
    const delta = await deltaOf(inputs, combination, Q_PROJ);
    return Math.hypot(...delta.map((value, i) => value - exact[i]!)) / length;
  };
  expect(await apart({ method: 'svd', weights, parameters: { rank: 2 } })).toBe(0);
  // The larger of two that hardly overlap stays.
  expect(await apart({ method: 'svd', weights, parameters: { rank: 1 } })).toBeGreaterThan(0.3);
  expect(await apart({ method: 'peft_linear', weights })).toBeGreaterThan(0.5);
});

test('the rank of svd is the largest of an adapter, patterns included, if none is given', async () => {
  const adapter = tinyAdapter({ rank: 5, seed: 3 });
  adapter.config['rank_pattern'] = { nothing: 7 };
  const inputs = await writeModels(tinyBase(), [tinyAdapter({ rank: 4 }), adapter]);
  const plan = await planDirectories(inputs, { combination: { method: 'svd' } });
  expect(plan.options.combination).toEqual({
    method: 'svd',
    weights: [1, 1],
    parameters: { rank: 7 },
  });
  const ranks = tensorsOf(plan).map(({ combined }) => combined?.rank);
  expect(new Set(ranks)).toEqual(new Set([undefined, 7]));
});

test('svd keeps saved modules and biases, which it adds up, beside truncated deltas', async () => {
  const base = tinyBase();
  const random = new Random(12);
  const bias = 'model.layers.0.self_attn.q_proj.bias';
  for (const layer of [0, 1]) {
    base.tensors.push(randomTensor(random, bias.replace('0', String(layer)), 'BF16', [64]));
  }
  const withBias = tinyAdapter({ targets: ['self_attn.q_proj'] });
  withBias.config['lora_bias'] = true;
  for (const { name } of withBias.tensors.filter((each) => each.name.includes('lora_B'))) {
    withBias.tensors.push(randomTensor(random, name.replace('.weight', '.bias'), 'F32', [64]));
  }
  const other = withEmbedding(5);
  other.tensors.push(randomTensor(random, 'base_model.model.lm_head.weight', 'F32', [100, 64]));
  const inputs = await writeModels(base, [withBias, other]);
  const options = {
    combination: { method: 'svd', weights: [0.5, 1], parameters: { rank: 2 } },
  } as const;
  const planned = tensorsOf(await planDirectories(inputs, options));
  const named = (name: string) => planned.find((tensor) => tensor.name === name);
  expect(named(bias)).toMatchObject({ deltas: [{ scaling: 1 }] });
  expect(named(bias)?.combined).toBeUndefined();
  expect(named(EMBEDDING)?.combined).toEqual({ method: 'svd', rank: 2 });
  expect(named('lm_head.weight')?.from.input).toBe('b');
  await mergedWeights(inputs, options);
});

test('verification finds other weights, ranks, shares and methods', async () => {
  const inputs = await writeModels(tinyBase(), [withEmbedding(2), withEmbedding(3)]);
  const roots = { base: inputs.base, a: inputs.adapter, ...inputs.others };
  for (const combination of COMBINATIONS) {
    const output = join(await temporaryDirectory(), 'merged');
    const { plan } = await mergeDirectories({ ...inputs, output, options: { combination } });
    const files = await openModelDirectory(output);
    const verify = (altered: Plan) =>
      verifyMerge({ directory: output, files, recompute: { plan: altered, roots } });
    const alter = (change: (tensor: ReturnType<typeof tensorsOf>[number]) => void): Plan => {
      const altered = structuredClone(plan);
      for (const tensor of tensorsOf(altered)) if (tensor.combined) change(tensor);
      return altered;
    };
    const wrong = [
      alter(({ deltas }) => {
        for (const delta of deltas ?? []) delta.scaling *= delta.adapter === 'b' ? 1.25 : 1;
      }),
      alter(({ combined }) => {
        if (combined?.method === 'svd') combined.rank = 2;
        else if (combined?.density !== undefined) combined.density *= 0.9;
        else if (combined) combined.density = 0.9;
      }),
      alter((tensor) => {
        delete tensor.combined;
      }),
    ];
    for (const altered of wrong) {
      await expect(verify(altered)).rejects.toMatchObject({
        code: 'verify.recomputation-mismatch',
      });
    }
  }
});

test('memory and disk are taken for it', async () => {
  const inputs = await writeModels(tinyBase(), [withEmbedding(2, 30), withEmbedding(3, 30)]);
  const [plan, linear] = await Promise.all([
    planDirectories(inputs, SVD),
    planDirectories(inputs, { combination: { method: 'linear' } }),
  ]);
  const [own, sum] = [resourcesFor(plan, 1, 262_144), resourcesFor(linear, 1, 262_144)];
  // The factors that are merged have rank 3, not 60.
  expect(own.arena.rightBytesMax).toBeLessThan(sum.arena.rightBytesMax / 10);
  const [shard] = plan.shards;
  const references = combinedShard(shard!, 'f').tensors.flatMap(({ deltas = [] }) =>
    deltas.flatMap(({ a, b }) => (b ? [a, b] : [a])),
  );
  let end = 0;
  for (const { offset, byteLength } of references) {
    expect(offset).toBe(end);
    end += byteLength;
  }
  expect(outputBytes(plan) - outputBytes(linear)).toBe(end);
});

test('one thread that combines large factors is taken where more are over the budget', () => {
  const shape = [60_000, 4096];
  const reference = (input: string, columns: number[]) => {
    const byteLength = 4 * columns[0]! * columns[1]!;
    return { input, file: 'x', offset: 0, byteLength, dtype: 'F32' as const, shape: columns };
  };
  const delta = (adapter: string) => ({
    adapter,
    module: 'm',
    a: reference(adapter, [64, 4096]),
    b: reference(adapter, [60_000, 64]),
    rank: 64,
    alpha: 64,
    scaling: 1,
    transposed: false,
  });
  const from = {
    ...reference('base', shape),
    dtype: 'BF16' as const,
    byteLength: 2 * 60_000 * 4096,
  };
  const tensor = {
    name: 'm.weight',
    dtype: 'BF16' as const,
    shape,
    offset: 0,
    byteLength: from.byteLength,
    from,
    deltas: [delta('a'), delta('b')] as [ReturnType<typeof delta>, ReturnType<typeof delta>],
    combined: { method: 'svd' as const, rank: 64 },
  };
  const plan = { shards: [{ file: 'x', size: from.byteLength, tensors: [tensor] }] };
  const choose = (memoryBudgetBytes: number) =>
    chooseResources(plan, { threads: 4, memoryBudgetBytes });
  const [tight, ample] = [choose(500e6), choose(2e9)];
  expect([tight.factorThreads, ample.factorThreads]).toEqual([2, 4]);
  expect(tight.memoryBytes).toBeLessThanOrEqual(500e6);
  expect(() => choose(200e6)).toThrow(/memory budget is 200 MB/);
});

test('factors that leave float32 are an error', async () => {
  const [one, two] = [tinyAdapter(), tinyAdapter({ seed: 3 })];
  for (const { name, data } of two.tensors) {
    if (!name.includes('lora_A')) continue;
    new Float32Array(data.buffer, data.byteOffset, data.length / 4).fill(1e38);
  }
  const inputs = await writeModels(tinyBase(), [one, two]);
  const options = { combination: { method: 'peft_linear', weights: [1, 1000] } } as const;
  const output = join(await temporaryDirectory(), 'merged');
  await expect(mergeDirectories({ ...inputs, output, options })).rejects.toMatchObject({
    code: 'merge.non-finite',
    message: expect.stringContaining('q_proj'),
  });
});
