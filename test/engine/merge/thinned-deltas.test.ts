import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { resourcesFor } from '../../../engine/merge/resources.ts';
import type { Combination } from '../../../engine/plan/combination.ts';
import { planDigest } from '../../../engine/plan/plan.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import { mergeDirectories, planDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { quantizeBase } from '../../doubles/quantized-weight.ts';
import { Random } from '../../doubles/random.ts';
import { mergedWeights, writeModels } from '../../doubles/several-models.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { combineInFloat64, denseDelta } from '../../doubles/thinned-merge.ts';
import {
  type FloatName,
  randomTensor,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { loadTensors } from '../../golden/golden-case.ts';

const METHODS = ['ties', 'dare_linear', 'dare_ties', 'magnitude_prune'] as const;
const TARGETS = ['self_attn.q_proj', 'self_attn.v_proj', 'mlp.down_proj'] as const;
const QUERY = 'model.layers.0.self_attn.q_proj.weight';
const UNIT = { BF16: 2 ** -8, F16: 2 ** -11, F32: 2 ** -24 };

async function tensorsOf(bytes: Buffer) {
  const directory = await temporaryDirectory();
  await writeFiles(directory, new Map([['model.safetensors', bytes]]));
  return loadTensors(directory, ['model.safetensors']);
}

const adapterOptions = fc.record({
  rank: fc.integer({ min: 1, max: 9 }),
  dtype: fc.constantFrom<FloatName>('BF16', 'F16', 'F32'),
  seed: fc.integer({ min: 2, max: 1000 }),
  targets: fc.subarray([...TARGETS], { minLength: 1 }),
});
const part = fc.record({
  adapter: adapterOptions,
  weight: fc.double({ min: -2, max: 2, noNaN: true }).filter((value) => value !== 0),
  density: fc.oneof(fc.double({ min: 0.05, max: 1, noNaN: true }), fc.constant(1)),
});

test.each(METHODS)(
  '%s: the formula in float64, whatever ranks, targets, dtypes, weights and densities are',
  async (method) => {
    const hasSeed = method.startsWith('dare');
    const hasSign = method.endsWith('ties');
    const cases = fc.record({
      parts: fc.array(part, { minLength: 1, maxLength: 3 }),
      dtype: fc.constantFrom<FloatName>('BF16', 'F16', 'F32'),
      seed: fc.nat(),
      majoritySign: fc.constantFrom('total', 'frequency'),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ parts, dtype, seed, majoritySign }) => {
        const base = tinyBase({ dtype });
        const adapters = parts.map(({ adapter }) => tinyAdapter(adapter));
        const inputs = await writeModels(base, adapters);
        const density = parts.map((each) => each.density);
        const parameters = {
          density,
          ...(hasSeed ? { seed } : {}),
          ...(hasSign ? { majoritySign } : {}),
        };
        const given = parts.map(({ weight }) => weight);
        const combination = { method, weights: given, parameters };
        const merged = await tensorsOf(await mergedWeights(inputs, { combination }));
        for (const { name, data } of base.tensors) {
          const rows = adapters.flatMap((adapter, index) => {
            const delta = denseDelta(adapter, name);
            const id = String.fromCharCode(97 + index);
            const { weight, density } = parts[index] ?? { weight: 1, density: 1 };
            return delta === undefined ? [] : [{ id, delta, weight, density }];
          });
          const how = { method, seed, majoritySign, name };
          const exact = combineInFloat64(decodeTensor(data, dtype), rows, how);
          const written = decodeTensor(merged.get(name)?.bytes ?? new Uint8Array(), dtype);
          const wrong = written.findIndex((value, i) => {
            const wanted = exact[i] ?? Number.NaN;
            // Beside the last rounding, one to float32; a plain sum has some more, at sums.
            const slack = 2 ** -20 * (Math.abs(wanted) + 1) + 2 ** -25;
            return !(Math.abs(value - wanted) <= UNIT[dtype] * Math.abs(wanted) + slack);
          });
          expect({ name, wrong }).toEqual({ name, wrong: -1 });
        }
      }),
      { numRuns: 4 },
    );
  },
);

test.each(METHODS)('%s: a float32 result is the formula, rounded once', async (method) => {
  const base = tinyBase({ dtype: 'F32' });
  const adapters = [3, 5, 8].map((rank) => tinyAdapter({ rank, seed: rank, targets: TARGETS }));
  const inputs = await writeModels(base, adapters);
  const weights = [1, -0.75, 2];
  const densities = [0.2, 0.5, 0.7];
  const combination = { method, weights, parameters: { density: densities } };
  const merged = await tensorsOf(await mergedWeights(inputs, { combination }));
  const rows = adapters.map((adapter, index) => ({
    id: 'abc'[index] ?? '',
    delta: denseDelta(adapter, QUERY) ?? new Float64Array(),
    weight: weights[index] ?? 0,
    density: densities[index] ?? 0,
  }));
  const weight = base.tensors.find(({ name }) => name === QUERY)?.data ?? new Uint8Array();
  const how = { method, seed: 0, majoritySign: 'total', name: QUERY };
  const exact = combineInFloat64(decodeTensor(weight, 'F32'), rows, how);
  const written = decodeTensor(merged.get(QUERY)?.bytes ?? new Uint8Array(), 'F32');
  for (const [i, value] of written.entries()) {
    const wanted = exact[i] ?? Number.NaN;
    expect(Math.abs(value - wanted)).toBeLessThanOrEqual(2 ** -24 * Math.abs(wanted) * 1.001);
  }
});

test('two adapters of rank 1 with weights 1 and -1 that both stay whole have no cross terms', async () => {
  const base = tinyBase({ dtype: 'F32' });
  const adapters = [1, 2].map((seed) => tinyAdapter({ rank: 1, seed }));
  const inputs = await writeModels(base, adapters);
  const sums = [];
  for (const method of ['magnitude_prune', 'dare_linear', 'linear'] as const) {
    const parameters = method === 'linear' ? {} : { parameters: { density: 1 } };
    const combination = { method, weights: [1, -1], ...parameters };
    sums.push(await mergedWeights(inputs, { combination }));
  }
  expect(sums[0]?.equals(sums[2] ?? Buffer.alloc(0))).toBe(true);
  expect(sums[1]?.equals(sums[2] ?? Buffer.alloc(0))).toBe(true);
  const [one, two] = adapters.map((adapter) => denseDelta(adapter, QUERY) ?? new Float64Array());
  const weight = base.tensors.find(({ name }) => name === QUERY)?.data ?? new Uint8Array();
  const written = (await tensorsOf(sums[0] ?? Buffer.alloc(0))).get(QUERY);
  const wanted = decodeTensor(weight, 'F32').map((value, i) =>
    Math.fround(value + (one?.[i] ?? 0) - (two?.[i] ?? 0)),
  );
  for (const [i, value] of decodeTensor(written?.bytes ?? new Uint8Array(), 'F32').entries()) {
    // The deltas of the reference are rounded to float32, those of a sum are not.
    expect(Math.abs(value - (wanted[i] ?? 0))).toBeLessThan(2 ** -22);
  }
});

test.each(METHODS)('%s of one adapter with weight 1 and density 1 is its merge', async (method) => {
  const inputs = await writeModels(tinyBase(), [tinyAdapter({ targets: TARGETS })]);
  const plain = planDigest(await planDirectories(inputs));
  const combination = { method, parameters: { density: 1 } };
  expect(planDigest(await planDirectories(inputs, { combination }))).toBe(plain);
  const thinned = { method, parameters: { density: 0.5 } };
  expect(planDigest(await planDirectories(inputs, { combination: thinned }))).not.toBe(plain);
});

describe.each(METHODS)('%s', (method) => {
  const combination: Combination = { method, weights: [1, 0.5], parameters: { density: 0.3 } };
  const adapters = [tinyAdapter({ targets: TARGETS }), tinyAdapter({ rank: 7, seed: 3 })];

  test('threads, windows and a stop in the middle make no difference', async () => {
    const inputs = await writeModels(tinyBase(), adapters);
    const whole = await mergedWeights(inputs, { combination });
    const output = join(await temporaryDirectory(), 'merged');
    const options = { ...inputs, output, options: { combination }, windowBytes: 4096 };
    const controller = new AbortController();
    const { signal } = controller;
    const stopped = mergeDirectories({
      ...options,
      threads: 2,
      signal,
      onProgress: ({ bytesDone, bytesTotal }) => {
        if (bytesDone > bytesTotal / 3) controller.abort(new Error('stopped'));
      },
    });
    await expect(stopped).rejects.toThrow('stopped');
    await mergeDirectories({ ...options, threads: 4 });
    expect((await readFile(join(output, 'model.safetensors'))).equals(whole)).toBe(true);
  });

  test('the order of adapters makes no difference: one plan', async () => {
    const three = [...adapters, tinyAdapter({ rank: 2, seed: 9 })];
    const inputs = await writeModels(tinyBase(), three);
    const { b = '', c = '' } = inputs.others ?? {};
    const swapped = { ...inputs, others: { c, b } };
    const how = (weights: number[], density: number[]) => ({
      combination: { method, weights, parameters: { density } },
    });
    const there = await planDirectories(inputs, how([1, 2, 3], [0.1, 0.2, 0.3]));
    const back = await planDirectories(swapped, how([1, 3, 2], [0.1, 0.3, 0.2]));
    expect(planDigest(back)).toBe(planDigest(there));
  });

  test('a row that is something else is found', async () => {
    const inputs = await writeModels(tinyBase(), adapters);
    const output = join(await temporaryDirectory(), 'merged');
    const { plan } = await mergeDirectories({ ...inputs, output, options: { combination } });
    const altered = structuredClone(plan);
    for (const { combination: how } of altered.shards.flatMap(({ tensors }) => tensors)) {
      for (const each of how?.parts ?? []) each.density += 0.2;
    }
    const files = await openModelDirectory(output);
    const roots = { base: inputs.base, a: inputs.adapter, ...inputs.others };
    await expect(
      verifyMerge({ directory: output, files, recompute: { plan: altered, roots } }),
    ).rejects.toMatchObject({ code: 'verify.recomputation-mismatch' });
  });
});

test('a stop while the largest elements are looked for leaves nothing behind', async () => {
  const adapters = [tinyAdapter({ targets: TARGETS }), tinyAdapter({ rank: 7, seed: 3 })];
  const inputs = await writeModels(tinyBase(), adapters);
  const combination = { method: 'ties', parameters: { density: 0.3 } } as const;
  const output = join(await temporaryDirectory(), 'merged');
  const options = { ...inputs, output, options: { combination } };
  const controller = new AbortController();
  let written = 0;
  const stopped = mergeDirectories({
    ...options,
    signal: controller.signal,
    onProgress: ({ tensor, bytesDone }) => {
      written = Math.max(written, bytesDone);
      if (tensor !== '') controller.abort(new Error('stopped'));
    },
  });
  await expect(stopped).rejects.toThrow('stopped');
  expect(written).toBe(0);
  await mergeDirectories(options);
  const whole = await mergedWeights(inputs, { combination });
  expect((await readFile(join(output, 'model.safetensors'))).equals(whole)).toBe(true);
});

test('another seed keeps other elements', async () => {
  const inputs = await writeModels(tinyBase(), [tinyAdapter()]);
  const merged = await Promise.all(
    [1, 1, 2].map((seed) => {
      const combination = { method: 'dare_linear', parameters: { density: 0.5, seed } } as const;
      return mergedWeights(inputs, { combination });
    }),
  );
  expect(merged[1]?.equals(merged[0] ?? Buffer.alloc(0))).toBe(true);
  expect(merged[2]?.equals(merged[0] ?? Buffer.alloc(0))).toBe(false);
});

test('embeddings, whose factors are transposed, and biases are thinned out too', async () => {
  const base = tinyBase();
  const random = new Random(12);
  const bias = 'model.layers.1.self_attn.q_proj.bias';
  for (const name of [bias, bias.replace('1', '0')]) {
    base.tensors.push(randomTensor(random, name, 'BF16', [64]));
  }
  const withBias = tinyAdapter({ rank: 2, seed: 2, targets: ['self_attn.q_proj'] });
  withBias.config['lora_bias'] = true;
  for (const { name } of withBias.tensors.filter((each) => each.name.includes('lora_B'))) {
    withBias.tensors.push(randomTensor(random, name.replace('.weight', '.bias'), 'F32', [64]));
  }
  const withEmbedding: TinyModel = tinyAdapter({ rank: 3, seed: 3 });
  const stem = 'base_model.model.model.embed_tokens.lora_embedding_';
  withEmbedding.tensors.push(randomTensor(random, `${stem}A`, 'F32', [3, 100]));
  withEmbedding.tensors.push(randomTensor(random, `${stem}B`, 'F32', [64, 3]));
  const inputs = await writeModels(base, [withBias, withEmbedding]);
  for (const method of METHODS) {
    const combination = { method, parameters: { density: [0.5, 0.25] } };
    const plan = await planDirectories(inputs, { combination });
    const thinned = plan.shards.flatMap(({ tensors }) => tensors.filter((t) => t.combination));
    expect(thinned.map(({ name }) => name)).toContain(bias);
    expect(thinned.map(({ name }) => name)).toContain('model.embed_tokens.weight');
    // Rows of both are worked out again from the files.
    await mergedWeights(inputs, { combination }, { threads: 2, windowBytes: 4096 });
  }
});

test.each(['nf4', 'int8'] as const)(
  'what a base in %s dequantises to is added to',
  async (kind) => {
    const base = tinyBase();
    quantizeBase(base, new Random(4), kind);
    const inputs = await writeModels(base, [tinyAdapter(), tinyAdapter({ seed: 5 })]);
    const combination = { method: 'dare_ties', parameters: { density: 0.4 } } as const;
    await mergedWeights(inputs, { combination, mergeOnto: 'dequantized' }, { windowBytes: 4096 });
  },
);

test('memory for a kernel per delta is declared', async () => {
  const memoryFor = async (count: number) => {
    const adapters = Array.from({ length: count }, (_, seed) => tinyAdapter({ seed: seed + 1 }));
    const combination = { method: 'ties', parameters: { density: 0.2 } } as const;
    const plan = await planDirectories(await writeModels(tinyBase(), adapters), { combination });
    return resourcesFor(plan, 2, 262_144);
  };
  const [two, four] = [await memoryFor(2), await memoryFor(4)];
  expect([two.bands?.denseCount, four.bands?.denseCount]).toEqual([2, 4]);
  expect(four.memoryBytes).toBeGreaterThan(two.memoryBytes);
});

test('a delta that is no number is refused, also where it would not stay', async () => {
  const adapter = tinyAdapter({ rank: 1 });
  for (const { name, data } of adapter.tensors) {
    if (name.includes('lora')) new DataView(data.buffer, data.byteOffset).setFloat32(0, 3e38, true);
  }
  const inputs = await writeModels(tinyBase(), [adapter]);
  for (const seed of [1, 2]) {
    const combination = { method: 'dare_linear', parameters: { density: 0.1, seed } } as const;
    const output = join(await temporaryDirectory(), 'merged');
    await expect(
      mergeDirectories({ ...inputs, output, options: { combination } }),
    ).rejects.toMatchObject({ code: 'merge.non-finite' });
  }
});
