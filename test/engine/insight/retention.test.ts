import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { retentionWarnings, sizeWarnings } from '../../../engine/insight/describe-insight.ts';
import { measureRetention, type RetentionReport } from '../../../engine/insight/retention.ts';
import { spreadIndices } from '../../../engine/insight/spread-tensors.ts';
import { TensorReader } from '../../../engine/insight/tensor-reader.ts';
import type { MergeOptions } from '../../../engine/plan/plan.ts';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import { dequantizeBase } from '../../doubles/dequantized-base.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { mergeDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { quantizeBase } from '../../doubles/quantized-weight.ts';
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
import { loadTensors } from '../../golden/golden-case.ts';
import { previewTiny } from './preview-tiny.ts';

const MODULE = 'model.layers.0.self_attn.q_proj';
const TARGET = `${MODULE}.weight`;

async function measure(
  base: TinyModel,
  adapters: readonly TinyModel[],
  options?: MergeOptions,
  where: 'local' | 'remote' = 'local',
): Promise<RetentionReport> {
  const { plan, models } = await previewTiny(base, adapters, options);
  const reader = new TensorReader(models);
  try {
    return await measureRetention(plan, reader.read, where);
  } finally {
    await reader.close();
  }
}

const float32 = (length: number, value: number): Uint8Array =>
  new Uint8Array(new Float32Array(length).fill(value).buffer);

/** Every weight of one module is 1, and the adapter adds `delta` to each. */
function ones(delta: number, dtype: 'BF16' | 'F32' = 'BF16') {
  const base = tinyBase({ dtype });
  const one = dtype === 'F32' ? float32(64 * 64, 1) : new Uint8Array(2 * 64 * 64);
  if (dtype === 'BF16') new Uint16Array(one.buffer).fill(0x3f80);
  alter(base, TARGET, { data: one });
  const adapter = tinyAdapter({ rank: 1, targets: ['self_attn.q_proj'] });
  for (const [half, value] of [
    ['lora_A', 1],
    ['lora_B', delta / 2],
  ] as const) {
    alter(adapter, `base_model.model.${MODULE}.${half}.weight`, { data: float32(64, value) });
    const other = `base_model.model.${MODULE.replace('0', '1')}.${half}.weight`;
    alter(adapter, other, { data: float32(64, half === 'lora_A' ? 1 : 0) });
  }
  return { base, adapter };
}

describe('the share of a delta that survives rounding', () => {
  it('is not measured over a network where it takes all of a tensor: norms of columns', async () => {
    const adapter = doraAdapter();
    const random = new Random(8);
    const stem = 'base_model.model.model.embed_tokens.lora_';
    adapter.config['target_modules'] = ['q_proj', 'v_proj', 'embed_tokens'];
    adapter.tensors.push(
      randomTensor(random, `${stem}embedding_A`, 'F32', [4, 100]),
      randomTensor(random, `${stem}embedding_B`, 'F32', [64, 4]),
      randomTensor(random, `${stem}magnitude_vector`, 'F32', [64]),
    );
    expect(await measure(tinyBase(), [adapter])).toMatchObject({ merged: 5, measured: 5 });
    const remote = await measure(tinyBase(), [adapter], {}, 'remote');
    expect(remote).toMatchObject({ merged: 5, measured: 4 });
  });

  it('is none of 0.001 beside a weight of 1 in bfloat16, and that is said', async () => {
    const { base, adapter } = ones(1e-3);
    const report = await measure(base, [adapter]);
    // The other layer's delta is zero: it has no retention, and takes nothing from the rest.
    expect(report).toEqual({
      overall: 0,
      merged: 2,
      measured: 2,
      relativeSize: expect.closeTo(1e-3, 9),
      tensors: [{ name: TARGET, retention: 0, relativeSize: expect.closeTo(1e-3, 9) }],
    });
    expect(retentionWarnings(report)).toEqual([
      expect.stringMatching(/0\.0 % of the delta survives, .* of 1 of 2 .*q_proj.*--dtype float32/),
    ]);
  });

  it('is all of what is a whole number of steps, and most of what float32 holds', async () => {
    const step = ones(2 ** -7);
    expect((await measure(step.base, [step.adapter])).overall).toBe(1);
    const { base, adapter } = ones(1e-3);
    const report = await measure(base, [adapter], { dtype: 'float32' });
    expect(report.overall).toBeGreaterThan(1 - 1e-7);
    expect(report.overall).toBeLessThan(1);
    expect(retentionWarnings(report)).toEqual([]);
  });

  it('is what is lost where a few values jump by a whole step, whatever their norm', async () => {
    // Weights of float32 between two values of bfloat16, and a delta that lifts one in 16 over.
    const { base, adapter } = ones(2 ** -11, 'F32');
    const between = Float32Array.from({ length: 64 * 64 }, (_, i) => 1 + (i % 16) * 2 ** -11);
    alter(base, TARGET, { data: new Uint8Array(between.buffer) });
    const { overall } = await measure(base, [adapter], { dtype: 'bfloat16' });
    // Of 16 values one moves by 16 d: the norm of what happens is 4 times that of d.
    expect(overall).toBe(1 - (15 ** 2 + 15) / 16);
  });

  it('is nothing to speak of where nothing is added', async () => {
    const { base, adapter } = ones(0);
    const report = await measure(base, [adapter]);
    expect(report).toEqual({
      ...{ overall: null, relativeSize: null },
      ...{ merged: 2, measured: 2, tensors: [] },
    });
    expect(retentionWarnings(report)).toEqual([]);
  });
});

/** Merges for real; the values of TARGET in the output. */
async function mergedValues(
  base: TinyModel,
  adapters: readonly TinyModel[],
  options: MergeOptions,
) {
  const root = await temporaryDirectory();
  const directories = {
    base: join(root, 'base'),
    adapter: join(root, 'a'),
    output: join(root, 'o'),
  };
  await writeFiles(directories.base, baseFiles(base));
  const others: Record<string, string> = {};
  for (const [index, adapter] of adapters.entries()) {
    const id = String.fromCharCode(97 + index);
    await writeFiles(join(root, id), adapterFiles(adapter));
    if (index > 0) others[id] = join(root, id);
  }
  await mergeDirectories({ ...directories, others, options });
  const { bytes, dtype } = (await loadTensors(directories.output, ['model.safetensors'])).get(
    TARGET,
  )!;
  return decodeTensor(bytes, dtype as FloatName);
}

it('stops between two reads when it is told to', async () => {
  const { plan, models } = await previewTiny(tinyBase(), [tinyAdapter()]);
  const controller = new AbortController();
  let reads = 0;
  const reader = new TensorReader(models, controller.signal);
  const measured = measureRetention(
    plan,
    (...given) => {
      if (++reads === 3) controller.abort(new Error('stopped'));
      return reader.read(...given);
    },
    'local',
  );
  await expect(measured).rejects.toThrow('stopped');
  expect(reads).toBe(3);
  await reader.close();
});

describe('retention', () => {
  const targets = ['self_attn.q_proj'] as const;
  const LINEAR = { combination: { method: 'linear', weights: [0.02, -0.03] } } as const;

  it.each<[string, FloatName, readonly TinyModel[], MergeOptions]>([
    ['of one adapter', 'BF16', [tinyAdapter({ targets })], {}],
    ['of a cast', 'F32', [tinyAdapter({ targets })], { dtype: 'bfloat16' }],
    ['of several', 'BF16', [tinyAdapter({ targets }), tinyAdapter({ targets, seed: 3 })], LINEAR],
    ['of DoRA', 'F16', [doraAdapter({ targets })], {}],
  ])('%s is what a merge to the same dtype shows beside one to float32', async (...given) => {
    const [, dtype, adapters, options] = given;
    const base = tinyBase({ dtype });
    const { tensors } = await measure(base, adapters, options);
    const measured = tensors.find(({ name }) => name === TARGET)?.retention;

    const elsewhere = [tinyAdapter({ targets: ['mlp.up_proj'] })];
    const cast = { dtype: options.dtype };
    const before = await mergedValues(base, elsewhere, cast);
    const after = await mergedValues(base, adapters, options);
    const source = await mergedValues(base, elsewhere, { dtype: 'float32' });
    const exact = await mergedValues(base, adapters, { ...options, dtype: 'float32' });
    let [energy, error] = [0, 0];
    for (const row of spreadIndices(TARGET, 64, 4)) {
      for (let i = 64 * row; i < 64 * (row + 1); i++) {
        const delta = exact[i]! - source[i]!;
        energy += delta ** 2;
        error += (after[i]! - before[i]! - delta) ** 2;
      }
    }
    expect(measured).toBeCloseTo(1 - error / energy, 4);
    expect(measured).toBeLessThan(1);
  });

  it.each(['nf4', 'int8'] as const)(
    'of a base in %s is that of what it dequantises to',
    async (kind) => {
      const quantized = tinyBase();
      quantizeBase(quantized, new Random(7), kind);
      const adapter = tinyAdapter();
      const mergeOnto = 'dequantized';
      const onto = await measure(quantized, [adapter], { mergeOnto, dtype: 'bfloat16' });
      const plain = await measure(dequantizeBase(quantized), [adapter], { dtype: 'bfloat16' });
      expect(onto).toEqual(plain);
      expect(onto.tensors).toHaveLength(4);
    },
  );
});

describe('how large deltas are beside the weights', () => {
  it('is the ratio of their norms, with the adapters’ weights', async () => {
    const { base, adapter } = ones(0.03);
    const combination = { method: 'linear', weights: [1, 2] } as const;
    const both = await measure(base, [adapter, adapter], { combination });
    expect(both.relativeSize).toBeCloseTo(0.09, 3);
    expect(both.tensors[0]?.relativeSize).toBe(both.relativeSize);
    expect(sizeWarnings(both)).toEqual([]);
  });
});
