import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ConflictReport, measureConflicts } from '../../../engine/insight/conflicts.ts';
import { conflictWarnings, describeConflicts } from '../../../engine/insight/describe-insight.ts';
import type { PairFigures } from '../../../engine/insight/pair-sums.ts';
import { spreadIndices } from '../../../engine/insight/spread-tensors.ts';
import { TensorReader } from '../../../engine/insight/tensor-reader.ts';
import type { PlannedDelta } from '../../../engine/plan/plan.ts';
import { compileKernel } from '../../../kernels/index.ts';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { kindAdapter } from '../../doubles/kind-adapter.ts';
import { Random } from '../../doubles/random.ts';
import {
  type FloatName,
  randomTensor,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { previewTiny } from './preview-tiny.ts';

const TARGETS = ['self_attn.q_proj', 'self_attn.k_proj', 'mlp.down_proj'] as const;
const kernel = await compileKernel();

async function measure(
  adapters: readonly TinyModel[],
  weights: readonly number[] = adapters.map(() => 1),
  base = tinyBase(),
): Promise<ConflictReport> {
  const { plan, models } = await previewTiny(base, adapters, {
    combination: { method: 'linear', weights },
  });
  const { base: _, ...others } = models;
  // Without the base: comparing reads adapters only.
  const reader = new TensorReader(others);
  try {
    const report = await measureConflicts(plan, reader.read, kernel);
    if (report === undefined) throw new Error('there is one adapter');
    return report;
  } finally {
    await reader.close();
  }
}

const pairOf = ({ pairs }: Pick<ConflictReport, 'pairs'>): PairFigures => {
  if (pairs[0] === undefined) throw new Error('no two adapters share a tensor');
  return pairs[0];
};

/** Every element of a delta, in float64: [out, in] in rows. */
function denseDelta(adapter: TinyModel, name: string, scale: number) {
  const stem = `base_model.model.${name.replace('.weight', '')}`;
  const find = (half: string) => {
    const tensor = adapter.tensors.find((each) => each.name === `${stem}.${half}.weight`);
    return tensor && { ...tensor, values: decodeTensor(tensor.data, tensor.dtype as FloatName) };
  };
  const [a, b] = [find('lora_A'), find('lora_B')];
  if (a === undefined || b === undefined) return undefined;
  const [rank = 0, columns = 0] = a.shape;
  const rows = b.shape[0] ?? 0;
  const values = Float64Array.from({ length: rows * columns }, (_, at) => {
    let sum = 0;
    for (let k = 0; k < rank; k++) {
      sum +=
        b.values[Math.floor(at / columns) * rank + k]! * a.values[k * columns + (at % columns)]!;
    }
    return scale * sum;
  });
  return { rows, columns, values };
}

const dot = (x: Float64Array, y: Float64Array): number =>
  x.reduce((sum, value, i) => sum + value * y[i]!, 0);

const adapterOptions = fc.record({
  rank: fc.integer({ min: 1, max: 9 }),
  dtype: fc.constantFrom<FloatName>('BF16', 'F16', 'F32'),
  seed: fc.integer({ min: 2, max: 1000 }),
  targets: fc.subarray([...TARGETS], { minLength: 1 }),
});
const weight = fc.double({ min: -2, max: 2, noNaN: true }).filter((w) => Math.abs(w) > 1e-3);

describe('comparing adapters from their factors', () => {
  it('gives the figures of the whole deltas, of tensors, layers and all', async () => {
    const part = fc.record({ options: adapterOptions, weight });
    const check = async (parts: readonly { options: object; weight: number }[]) => {
      const adapters = parts.map(({ options }) => tinyAdapter(options));
      const weights = parts.map((each) => each.weight);
      const report = await measure(adapters, weights);
      const sums = new Map<string, { product: number; one: number; other: number }>();
      let [signs, opposed] = [0, 0];
      for (const module of [0, 1].flatMap((l) => TARGETS.map((t) => `model.layers.${l}.${t}`))) {
        const name = `${module}.weight`;
        // Every tiny adapter has a scaling of 2.
        const [one, other] = adapters.map((each, i) => denseDelta(each, name, 2 * weights[i]!));
        if (one === undefined || other === undefined) continue;
        for (const key of [name, module.split('.').slice(0, 3).join('.'), 'all']) {
          const sum = sums.get(key) ?? { product: 0, one: 0, other: 0 };
          sum.product += dot(one.values, other.values);
          sum.one += dot(one.values, one.values);
          sum.other += dot(other.values, other.values);
          sums.set(key, sum);
        }
        for (const row of spreadIndices(name, one.rows, 32)) {
          for (const column of spreadIndices(name, one.columns, 32)) {
            const at = row * one.columns + column;
            signs++;
            if (one.values[at]! > 0 !== other.values[at]! > 0) opposed++;
          }
        }
      }
      const cosineOf = (key: string): number => {
        const { product, one, other } = sums.get(key)!;
        return product / Math.sqrt(one * other);
      };
      if (sums.size === 0) {
        expect([report.pairs, report.layers, report.tensors]).toEqual([[], [], []]);
        return;
      }
      expect(pairOf(report).cosine).toBeCloseTo(cosineOf('all'), 6);
      // Of a value that is nearly zero, rounding decides the sign.
      const conflicts = (pairOf(report).signConflicts ?? 0) * signs;
      expect(Math.abs(conflicts - opposed)).toBeLessThanOrEqual(signs / 1000);
      expect(report.layers.map(({ layer }) => layer)).toEqual(['model.layers.0', 'model.layers.1']);
      for (const { layer, pairs } of report.layers) {
        expect(pairOf({ pairs }).cosine).toBeCloseTo(cosineOf(layer), 6);
      }
      expect(report.tensors).toHaveLength(sums.size - 3);
      for (const { name, pairs } of report.tensors) {
        expect(pairOf({ pairs }).cosine).toBeCloseTo(cosineOf(name), 6);
      }
    };
    const parts = fc.array(part, { minLength: 2, maxLength: 2 });
    await fc.assert(fc.asyncProperty(parts, check), { numRuns: 25 });
  });

  it('finds an adapter like itself, against its negative, and the same at any weight', async () => {
    const adapter = tinyAdapter({ targets: TARGETS });
    for (const [weights, sign] of [
      [[1, 1], 1],
      [[1, -1], -1],
      [[-0.01, 100], -1],
    ] as const) {
      const report = await measure([adapter, adapter], weights);
      const pair = pairOf(report);
      expect(pair.cosine).toBeCloseTo(sign, 9);
      expect(pair.signConflicts).toBe(sign === 1 ? 0 : 1);
      expect(pair.tensors).toBe(6);
      const [one, other] = report.adapters;
      expect(one!.norm / other!.norm).toBeCloseTo(Math.abs(weights[0] / weights[1]), 9);
    }
  });

  it('does not depend on the order of adapters, and counts the tensors they share', async () => {
    const one = tinyAdapter({ targets: ['self_attn.q_proj', 'self_attn.v_proj'] });
    const other = tinyAdapter({ targets: ['self_attn.v_proj', 'mlp.up_proj'], rank: 7, seed: 3 });
    const there = await measure([one, other], [1, 2]);
    const back = await measure([other, one], [2, 1]);
    expect(there).toMatchObject({ comparable: 6, measured: 6, leftOut: 0 });
    expect(there.adapters.map(({ tensors }) => tensors)).toEqual([4, 4]);
    expect(pairOf(there).tensors).toBe(2);
    expect(pairOf(there).cosine).toBeCloseTo(pairOf(back).cosine!, 12);
    expect(there.adapters[0]!.norm).toBeCloseTo(back.adapters[1]!.norm, 12);
  });

  it('gives the same figures with every kernel', async () => {
    const adapters = [3, 4].map((seed) => tinyAdapter({ targets: TARGETS, seed, rank: seed }));
    const { plan, models } = await previewTiny(tinyBase(), adapters, {
      combination: { method: 'linear' },
    });
    const reader = new TensorReader(models);
    const figures = await Promise.all(
      (['wasm', 'scalar'] as const).map(async (kind) =>
        measureConflicts(plan, reader.read, await compileKernel({ kind })),
      ),
    );
    await reader.close();
    expect(figures[0]).toEqual(figures[1]);
    expect(figures[0]).toEqual(await measure(adapters));
  });
});

describe('what is compared', () => {
  const random = new Random(9);

  it('takes embeddings, whose factors are transposed, and biases', async () => {
    const base = tinyBase();
    const bias = 'model.layers.0.self_attn.q_proj.bias';
    for (const name of [bias, bias.replace('0', '1')]) {
      base.tensors.push(randomTensor(random, name, 'BF16', [64]));
    }
    const adapter = tinyAdapter({ targets: ['self_attn.q_proj'] });
    adapter.config['lora_bias'] = true;
    for (const { name } of adapter.tensors.filter((each) => each.name.includes('lora_B'))) {
      adapter.tensors.push(randomTensor(random, name.replace('.weight', '.bias'), 'F32', [64]));
    }
    const embedding = tinyAdapter({ targets: ['self_attn.q_proj'], seed: 4 });
    const stem = 'base_model.model.model.embed_tokens.lora_embedding_';
    embedding.tensors.push(randomTensor(random, `${stem}A`, 'F32', [4, 100]));
    embedding.tensors.push(randomTensor(random, `${stem}B`, 'F32', [64, 4]));
    const mixed = await measure([adapter, embedding], [1, 1], base);
    expect(mixed.adapters.map(({ tensors }) => tensors)).toEqual([4, 3]);
    expect(pairOf(mixed).tensors).toBe(2);
    for (const [each, count] of [
      [adapter, 4],
      [embedding, 3],
    ] as const) {
      const report = await measure([each, each], [1, -1], base);
      expect(report).toMatchObject({ comparable: count, leftOut: 0 });
      expect(report.tensors.map(({ pairs }) => pairOf({ pairs }).cosine)).toEqual(
        Array.from({ length: count }, () => expect.closeTo(-1, 9)),
      );
    }
  });

  it('leaves out what is no product of factors, and says how much that is', async () => {
    const dora = doraAdapter({ targets: ['mlp.up_proj'] });
    const head = randomTensor(random, 'base_model.model.lm_head.weight', 'BF16', [100, 64]);
    dora.tensors.push(head);
    dora.config['modules_to_save'] = ['lm_head'];
    const report = await measure([tinyAdapter({ targets: ['self_attn.q_proj'] }), dora]);
    expect(report).toMatchObject({ comparable: 2, measured: 2, leftOut: 3, pairs: [] });
    expect(report.adapters).toMatchObject([{ tensors: 2 }, { tensors: 0, norm: 0 }]);
    expect(conflictWarnings(report)).toEqual([]);
    expect(describeConflicts(report)).toEqual([
      'no two adapters add to the same tensor',
      '3 tensors cannot be compared (DoRA, other kinds, replaced tensors or rows)',
    ]);
  });

  it('counts what kinds beside LoRA change, with a delta or alone', async () => {
    const plain = tinyAdapter({ targets: ['self_attn.q_proj'] });
    const report = await measure([plain, kindAdapter('LOHA')]);
    // Queries have both, the two layers' down projections only the other.
    expect(report).toMatchObject({ comparable: 2, measured: 2, leftOut: 4 });
  });

  it('takes no delta of which a plan says more than is known here', async () => {
    const adapter = tinyAdapter({ targets: TARGETS });
    const { plan, models, tensors } = await previewTiny(tinyBase(), [adapter, adapter], {
      combination: { method: 'linear' },
    });
    const delta = tensors.find(({ deltas }) => deltas !== undefined)!.deltas![0]!;
    const extended: PlannedDelta & { hadamard?: boolean } = delta;
    extended.hadamard = true;
    const reader = new TensorReader(models);
    const report = await measureConflicts(plan, reader.read, kernel);
    await reader.close();
    expect(report).toMatchObject({ comparable: 6, leftOut: 1 });
    expect(pairOf(report!).tensors).toBe(5);
  });

  it('is nothing for one adapter', async () => {
    const { plan } = await previewTiny(tinyBase(), [tinyAdapter()]);
    const read = () => Promise.reject(new Error('nothing is to be read'));
    expect(await measureConflicts(plan, read, kernel)).toBeUndefined();
  });
});

describe('what is said of adapters', () => {
  const adapter = tinyAdapter({ targets: TARGETS });
  const other = tinyAdapter({ targets: TARGETS, seed: 3 });

  it.each<[string, readonly TinyModel[], readonly number[], RegExp | undefined]>([
    ['fight', [adapter, adapter], [1, -0.5], /"a" and "b" fight.*cosine -1\.00 over 6 tensors/],
    ['add the same', [adapter, adapter], [1, 1], /add nearly the same \(cosine 1\.00\)/],
    [
      'differ in size',
      [adapter, other],
      [0.01, 1],
      /"b" adds is \d+ times as large as .* "a" adds/,
    ],
    ['are unrelated', [adapter, other], [1, 1], undefined],
  ])('that %s', async (_, adapters, weights, expected) => {
    const warnings = conflictWarnings(await measure(adapters, weights));
    expect(warnings).toEqual(expected === undefined ? [] : [expect.stringMatching(expected)]);
  });

  it('of which there are many: those first that agree least', async () => {
    const seeds = [2, 3, 4, 5, 6, 7];
    const adapters = seeds.map((seed) => tinyAdapter({ targets: TARGETS, seed }));
    const report = await measure([...adapters, adapter], [1, 1, 1, 1, 1, 1, -1]);
    const lines = describeConflicts(report);
    expect(lines).toHaveLength(16);
    expect(lines[0]).toBe('a and g: 6 tensors in common, cosine -1.00, 100.0 % of signs opposed');
    expect(lines.at(-1)).toBe('6 more pairs, with greater cosines');
  });

  it('that fight in one layer only', async () => {
    const negated = tinyAdapter({ targets: TARGETS });
    for (const tensor of negated.tensors.filter(({ name }) => /layers\.0.*lora_B/.test(name))) {
      const data = Uint8Array.from(tensor.data);
      for (let i = 3; i < data.length; i += 4) data[i]! ^= 0x80;
      negated.tensors.splice(negated.tensors.indexOf(tensor), 1, { ...tensor, data });
    }
    const warnings = conflictWarnings(await measure([adapter, negated]));
    expect(warnings).toEqual([
      expect.stringMatching(/fight in 1 of 2 layers \(model\.layers\.0\)/),
    ]);
  });
});
