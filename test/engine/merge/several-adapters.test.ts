import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { resourcesFor } from '../../../engine/merge/resources.ts';
import { type MergeOptions, planDigest } from '../../../engine/plan/plan.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import { mergeInFloat64 } from '../../doubles/float-merge.ts';
import { mergeDirectories, planDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { Random } from '../../doubles/random.ts';
import { mergedWeights, writeModels } from '../../doubles/several-models.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  type FloatName,
  randomTensor,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { loadTensors } from '../../golden/golden-case.ts';

const TARGETS = ['self_attn.q_proj', 'self_attn.v_proj', 'mlp.down_proj'] as const;
const LINEAR = { combination: { method: 'linear' } } as const;

interface Values {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
}

function valuesOf(model: TinyModel, name: string): Values | undefined {
  const tensor = model.tensors.find((each) => each.name === name);
  if (tensor === undefined) return undefined;
  const [rows = 0, columns = 0] = tensor.shape;
  return { rows, columns, data: decodeTensor(tensor.data, tensor.dtype as FloatName) };
}

/** `W + Σ weight · scaling · B A` in float64, and how far from it float32 sums may come. */
function sumInFloat64(
  base: TinyModel,
  adapters: readonly TinyModel[],
  scalings: readonly number[],
  name: string,
): { readonly exact: Float64Array; readonly bound: Float64Array } {
  const weight = valuesOf(base, name);
  if (weight === undefined) throw new Error(`the base has no ${name}`);
  const exact = Float64Array.from(weight.data);
  const bound = new Float64Array(exact.length);
  for (const [index, adapter] of adapters.entries()) {
    const stem = `base_model.model.${name.replace('.weight', '')}`;
    const a = valuesOf(adapter, `${stem}.lora_A.weight`);
    const b = valuesOf(adapter, `${stem}.lora_B.weight`);
    if (a === undefined || b === undefined) continue;
    for (const i of exact.keys()) {
      const row = Math.floor(i / weight.columns);
      const column = i % weight.columns;
      const left = b.data.subarray(row * b.columns, (row + 1) * b.columns);
      const right = left.map((_, k) => a.data[k * a.columns + column] ?? Number.NaN);
      const merged = mergeInFloat64(exact[i] ?? 0, left, right, scalings[index] ?? 0);
      exact[i] = merged.value;
      bound[i] = (bound[i] ?? 0) + merged.bound;
    }
  }
  return { exact, bound };
}

const UNIT = { BF16: 2 ** -8, F16: 2 ** -11, F32: 2 ** -24 };

const adapterOptions = fc.record({
  rank: fc.integer({ min: 1, max: 9 }),
  dtype: fc.constantFrom<FloatName>('BF16', 'F16', 'F32'),
  seed: fc.integer({ min: 2, max: 1000 }),
  targets: fc.subarray([...TARGETS], { minLength: 1 }),
});
const weight = fc.double({ min: -2, max: 2, noNaN: true }).filter((value) => value !== 0);

test('the sum of all adapters, whatever their ranks, targets, dtypes and weights', async () => {
  const part = fc.record({ adapter: adapterOptions, weight });
  const parts = fc.array(part, { minLength: 2, maxLength: 4 });
  const dtypes = fc.constantFrom<FloatName>('BF16', 'F16', 'F32');
  await fc.assert(
    fc.asyncProperty(parts, dtypes, async (chosen, dtype) => {
      const base = tinyBase({ dtype });
      const adapters = chosen.map(({ adapter }) => tinyAdapter(adapter));
      const inputs = await writeModels(base, adapters);
      const given = chosen.map((each) => each.weight);
      const bytes = await mergedWeights(inputs, {
        combination: { method: 'linear', weights: given },
      });
      const output = await temporaryDirectory();
      await writeFiles(output, new Map([['model.safetensors', bytes]]));
      for (const [name, tensor] of await loadTensors(output, ['model.safetensors'])) {
        // Every tiny adapter has a scaling of 2.
        const scalings = given.map((value) => 2 * value);
        const { exact, bound } = sumInFloat64(base, adapters, scalings, name);
        const merged = decodeTensor(tensor.bytes, dtype);
        const wrong = merged.findIndex((value, i) => {
          const sum = exact[i] ?? Number.NaN;
          const rounding = UNIT[dtype] * (1 + 2 ** -7) * Math.abs(sum) + 2 ** -25;
          return !(Math.abs(value - sum) <= rounding + (bound[i] ?? 0));
        });
        expect({ name, wrong }).toEqual({ name, wrong: -1 });
      }
    }),
    { numRuns: 15 },
  );
});

test('two adapters of rank 1 with weights 1 and -1 have no cross terms', async () => {
  const base = tinyBase({ dtype: 'F32' });
  const adapters = [1, 2].map((seed) => tinyAdapter({ rank: 1, seed }));
  const inputs = await writeModels(base, adapters);
  const output = join(await temporaryDirectory(), 'merged');
  const options = { combination: { method: 'linear', weights: [1, -1] } } as const;
  await mergeDirectories({ ...inputs, output, options });
  const name = 'model.layers.0.self_attn.q_proj.weight';
  const merged = (await loadTensors(output, ['model.safetensors'])).get(name);
  const { exact } = sumInFloat64(base, adapters, [2, -2], name);
  expect(decodeTensor(merged?.bytes ?? new Uint8Array(), 'F32')).toEqual(
    exact.map((value) => Math.fround(value)),
  );
});

test.each<FloatName>(['BF16', 'F16', 'F32'])(
  '%s: an adapter with its own negative leaves the base, where no delta is huge beside it',
  async (dtype) => {
    const adapter = tinyAdapter({ targets: TARGETS, rank: 5 });
    const inputs = await writeModels(tinyBase({ dtype }), [adapter, adapter]);
    const combination = { method: 'linear', weights: [1, -1] } as const;
    const merged = await mergedWeights(inputs, { combination });
    const base = await readFile(join(inputs.base, 'model.safetensors'));
    // Headers may be written another way; the data is last in both.
    const length = base.length - 8 - Number(base.readBigUInt64LE(0));
    expect(merged.subarray(-length).equals(base.subarray(-length))).toBe(true);
  },
);

test('one adapter of weight 1: the plan and the bytes are those without a combination', async () => {
  const inputs = await writeModels(tinyBase(), [tinyAdapter({ targets: TARGETS })]);
  const plain = await planDirectories(inputs);
  for (const combination of [
    { method: 'linear' },
    { method: 'cat', weights: [1] },
    { method: 'sequential' },
  ] as const) {
    expect(planDigest(await planDirectories(inputs, { combination }))).toBe(planDigest(plain));
  }
  const half = { combination: { method: 'linear', weights: [0.5] } } as const;
  expect(planDigest(await planDirectories(inputs, half))).not.toBe(planDigest(plain));
});

test('all methods are one sum and one plan; weights and order make another', async () => {
  const inputs = await writeModels(tinyBase(), [tinyAdapter(), tinyAdapter({ seed: 3 })]);
  const digestFor = async (combination: MergeOptions['combination'], from = inputs) =>
    planDigest(await planDirectories(from, { combination }));
  const linear = await digestFor({ method: 'linear' });
  expect(await digestFor({ method: 'cat', weights: [1, 1] })).toBe(linear);
  expect(await digestFor({ method: 'sequential' })).toBe(linear);
  expect(await digestFor({ method: 'linear', weights: [1, 2] })).not.toBe(linear);
  const swapped = { ...inputs, adapter: inputs.others?.['b'] ?? '', others: { b: inputs.adapter } };
  expect(await digestFor({ method: 'linear' }, swapped)).not.toBe(linear);
});

test('the order of adapters changes nothing of a float32 sum, and roundings of a 16-bit one', async () => {
  const pair = [tinyAdapter({ targets: TARGETS }), tinyAdapter({ rank: 7, seed: 3 })];
  for (const dtype of ['F32', 'BF16'] as const) {
    const inputs = await writeModels(tinyBase({ dtype }), pair);
    const there = await mergedWeights(inputs, LINEAR);
    const others = { b: inputs.adapter };
    const back = await mergedWeights(
      { ...inputs, adapter: inputs.others?.['b'] ?? '', others },
      LINEAR,
    );
    if (dtype === 'F32') expect(back.equals(there)).toBe(true);
    const differing = there.filter((byte, i) => byte !== back[i]).length;
    expect(differing / there.length).toBeLessThan(0.001);
  }
});

test('threads and windows make no difference', async () => {
  const adapters = [5, 16, 1].map((rank) => tinyAdapter({ targets: TARGETS, rank, seed: rank }));
  const inputs = await writeModels(tinyBase(), adapters);
  const whole = await mergedWeights(inputs, LINEAR, { threads: 1, windowBytes: 4_194_304 });
  const cut = await mergedWeights(inputs, LINEAR, { threads: 3, windowBytes: 4096 });
  expect(cut.equals(whole)).toBe(true);
});

test('embeddings, whose factors are transposed, and biases add up too', async () => {
  const base = tinyBase();
  const random = new Random(12);
  const bias = 'model.layers.1.self_attn.q_proj.bias';
  for (const name of [bias, bias.replace('1', '0')]) {
    base.tensors.push(randomTensor(random, name, 'BF16', [64]));
  }
  const withBias = (rank: number): TinyModel => {
    const adapter = tinyAdapter({ rank, seed: rank, targets: ['self_attn.q_proj'] });
    adapter.config['lora_bias'] = true;
    for (const { name } of adapter.tensors.filter((each) => each.name.includes('lora_B'))) {
      adapter.tensors.push(randomTensor(random, name.replace('.weight', '.bias'), 'F32', [64]));
    }
    return adapter;
  };
  const withEmbedding = (rank: number): TinyModel => {
    const adapter = tinyAdapter({ rank, seed: rank });
    const stem = 'base_model.model.model.embed_tokens.lora_embedding_';
    adapter.tensors.push(randomTensor(random, `${stem}A`, 'F32', [rank, 100]));
    adapter.tensors.push(randomTensor(random, `${stem}B`, 'F32', [64, rank]));
    return adapter;
  };
  const inputs = await writeModels(base, [
    withBias(3),
    withEmbedding(5),
    withBias(8),
    withEmbedding(2),
  ]);
  const options = { combination: { method: 'linear', weights: [0.5, 1.5, 2, 3] } } as const;
  const plan = await planDirectories(inputs, options);
  const tensors = plan.shards.flatMap((shard) => shard.tensors);
  const scalingsOf = (name: string) => {
    const { deltas = [] } = tensors.find((each) => each.name === name) ?? {};
    return deltas.map(({ scaling }) => scaling);
  };
  // The scaling of each is 2.
  expect(scalingsOf(bias)).toEqual([1, 4]);
  expect(scalingsOf('model.embed_tokens.weight')).toEqual([3, 6]);
  expect(scalingsOf(bias.replace('bias', 'weight'))).toEqual([1, 3, 4, 6]);
  // `mergedWeights` has rows of both worked out again from B, A and the biases.
  const whole = await mergedWeights(inputs, options, { threads: 1, windowBytes: 4_194_304 });
  const cut = await mergedWeights(inputs, options, { threads: 3, windowBytes: 4096 });
  expect(cut.equals(whole)).toBe(true);
});

test('memory is taken for the sum of the ranks', async () => {
  const arenaFor = async (ranks: readonly number[]) => {
    const adapters = ranks.map((rank) => tinyAdapter({ targets: TARGETS, rank, seed: rank }));
    const plan = await planDirectories(await writeModels(tinyBase(), adapters), LINEAR);
    return resourcesFor(plan, 1, 262_144).arena;
  };
  const [several, one] = [await arenaFor([8, 24, 32]), await arenaFor([64])];
  expect(several.leftBytesMax).toBe(one.leftBytesMax);
  expect(several.rightBytesMax).toBe(one.rightBytesMax);
});

test('verification works the sum out from all adapters', async () => {
  const inputs = await writeModels(tinyBase(), [tinyAdapter(), tinyAdapter({ seed: 3 })]);
  const output = join(await temporaryDirectory(), 'merged');
  const { plan } = await mergeDirectories({ ...inputs, output, options: LINEAR });
  const files = await openModelDirectory(output);
  const roots = { base: inputs.base, a: inputs.adapter, ...inputs.others };
  const altered = structuredClone(plan);
  for (const { deltas } of altered.shards.flatMap(({ tensors }) => tensors)) {
    for (const delta of deltas?.slice(1) ?? []) delta.scaling *= 1.25;
  }
  await expect(
    verifyMerge({ directory: output, files, recompute: { plan: altered, roots } }),
  ).rejects.toMatchObject({ code: 'verify.recomputation-mismatch' });
});
