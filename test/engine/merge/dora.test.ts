import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { MEMORY_BUDGET_BYTES_DEFAULT, resourcesFor } from '../../../engine/merge/resources.ts';
import type { Plan } from '../../../engine/plan/plan.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { mergeDirectories, planDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  alter,
  baseFiles,
  type FloatName,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { loadTensors } from '../../golden/golden-case.ts';

const TARGETS = ['self_attn.q_proj', 'mlp.down_proj'] as const;
const TORCH_NAMES = { BF16: 'bfloat16', F16: 'float16', F32: 'float32' } as const;

interface Inputs {
  readonly base: string;
  readonly adapter: string;
}

async function write(root: string, base: TinyModel, adapter: TinyModel): Promise<Inputs> {
  const inputs = { base: join(root, 'base'), adapter: join(root, 'adapter') };
  await writeFiles(inputs.base, baseFiles(base));
  await writeFiles(inputs.adapter, adapterFiles(adapter));
  return inputs;
}

test.each([
  'lora_magnitude_vector',
  'lora_magnitude_vector.weight',
  'lora_magnitude_vector.default',
  'lora_magnitude_vector.default.weight',
  'dora_scale',
])('a magnitude named %s', async (suffix) => {
  const adapter = doraAdapter({ targets: TARGETS }, suffix);
  const plan = await planDirectories(await write(await temporaryDirectory(), tinyBase(), adapter));
  expect(magnitudesOf(plan)).toEqual([[64], [64], [64], [64]]);
});

function magnitudesOf({ shards }: Plan): (readonly number[])[] {
  const deltas = shards.flatMap(({ tensors }) => tensors.flatMap((each) => each.deltas ?? []));
  return deltas.flatMap(({ magnitude }) => (magnitude === undefined ? [] : [magnitude.shape]));
}

test('a magnitude that is a column is one of outputs', async () => {
  const adapter = doraAdapter({ targets: TARGETS }, 'dora_scale');
  const root = await temporaryDirectory();
  const plain = await write(join(root, 'vector'), tinyBase(), adapter);
  const vector = magnitudesOf(await planDirectories(plain));
  for (const tensor of adapter.tensors) {
    if (tensor.name.endsWith('dora_scale')) Object.assign(tensor, { shape: [64, 1] });
  }
  const column = await write(join(root, 'column'), tinyBase(), adapter);
  expect(magnitudesOf(await planDirectories(column))).toEqual(vector);
});

const DTYPES: readonly [FloatName, FloatName | undefined, FloatName][] = [
  ['BF16', undefined, 'F32'],
  ['F16', undefined, 'BF16'],
  ['F32', undefined, 'F32'],
  ['BF16', 'F32', 'F16'],
  ['F32', 'F16', 'F32'],
];

test.each(DTYPES)(
  'rows of %s to %s with lengths in %s: the same bytes wherever windows end',
  async (from, to, factors) => {
    const root = await temporaryDirectory();
    const adapter = doraAdapter({ targets: TARGETS, rank: 5, dtype: factors });
    const inputs = await write(root, tinyBase({ dtype: from }), adapter);
    const options = to === undefined ? {} : { dtype: TORCH_NAMES[to] };
    const outputs: Buffer[] = [];
    for (const [threads, windowBytes] of [
      [1, 4_194_304],
      [3, 4096],
    ] as const) {
      const output = join(root, `merged-${threads}`);
      const { plan } = await mergeDirectories({ ...inputs, output, options, threads, windowBytes });
      const roots = { base: inputs.base, a: inputs.adapter };
      const files = await openModelDirectory(output);
      await verifyMerge({ directory: output, files, recompute: { plan, roots } });
      outputs.push(await readFile(join(output, 'model.safetensors')));
    }
    expect(outputs[0]?.equals(outputs[1] ?? Buffer.alloc(0))).toBe(true);
  },
);

test('every row has the length that was trained', async () => {
  const root = await temporaryDirectory();
  const adapter = doraAdapter({ targets: TARGETS });
  const inputs = await write(root, tinyBase({ dtype: 'F32' }), adapter);
  const output = join(root, 'merged');
  await mergeDirectories({ ...inputs, output });
  const merged = await loadTensors(output, ['model.safetensors']);
  for (const { name, data } of adapter.tensors.filter((each) => each.name.includes('magnitude'))) {
    const stem = name.replace('base_model.model.', '').replace('.lora_magnitude_vector', '');
    const { bytes, shape } = merged.get(`${stem}.weight`) ?? { bytes: data, shape: [1] };
    const values = decodeTensor(bytes, 'F32');
    const columns = shape[1] ?? 0;
    for (const [row, length] of decodeTensor(data, 'F32').entries()) {
      const norm = Math.hypot(...values.subarray(row * columns, (row + 1) * columns));
      expect(norm / Math.abs(length)).toBeCloseTo(1, 6);
    }
  }
});

test('magnitudes of the merged rows change nothing: DoRA is then LoRA', async () => {
  const root = await temporaryDirectory();
  const base = tinyBase({ dtype: 'F32' });
  const plain = await write(join(root, 'lora'), base, tinyAdapter({ targets: TARGETS }));
  const [lora, dora] = [join(root, 'merged-lora'), join(root, 'merged-dora')];
  await mergeDirectories({ ...plain, output: lora });
  const merged = await loadTensors(lora, ['model.safetensors']);
  const adapter = doraAdapter({ targets: TARGETS });
  for (const { name } of adapter.tensors.filter((each) => each.name.includes('magnitude'))) {
    const stem = name.replace('base_model.model.', '').replace('.lora_magnitude_vector', '');
    const tensor = merged.get(`${stem}.weight`);
    if (tensor === undefined) throw new Error(`there is no ${stem}`);
    const values = decodeTensor(tensor.bytes, 'F32');
    const [rows = 0, columns = 0] = tensor.shape;
    const norms = Float32Array.from({ length: rows }, (_, row) =>
      Math.hypot(...values.subarray(row * columns, (row + 1) * columns)),
    );
    alter(adapter, name, { data: new Uint8Array(norms.buffer) });
  }
  await mergeDirectories({ ...(await write(join(root, 'dora'), base, adapter)), output: dora });
  for (const [name, { bytes }] of await loadTensors(dora, ['model.safetensors'])) {
    const values = decodeTensor(bytes, 'F32');
    const wanted = decodeTensor(merged.get(name)?.bytes ?? bytes, 'F32');
    for (const [index, value] of values.entries()) {
      const other = wanted[index] ?? Number.NaN;
      expect(Math.abs(value - other)).toBeLessThanOrEqual(2 ** -22 * Math.abs(other));
    }
  }
});

test('a row that was scaled to another length is found', async () => {
  const root = await temporaryDirectory();
  const inputs = await write(root, tinyBase(), doraAdapter({ targets: TARGETS }));
  const output = join(root, 'merged');
  const { plan } = await mergeDirectories({ ...inputs, output });
  const others = structuredClone(plan);
  for (const { deltas } of others.shards.flatMap(({ tensors }) => tensors)) {
    const [delta] = deltas ?? [];
    // The lengths of the next module.
    if (delta?.magnitude !== undefined) delta.magnitude.offset -= 4;
  }
  const roots = { base: inputs.base, a: inputs.adapter };
  const files = await openModelDirectory(output);
  await expect(
    verifyMerge({ directory: output, files, recompute: { plan: others, roots } }),
  ).rejects.toMatchObject({ code: 'verify.recomputation-mismatch' });
});

test('a row of zeros has no direction to scale', async () => {
  const root = await temporaryDirectory();
  const base = tinyBase();
  const adapter = doraAdapter({ targets: TARGETS });
  base.tensors.find(({ name }) => name.includes('layers.1.mlp.down_proj'))?.data.fill(0, 0, 256);
  for (const { name, data } of adapter.tensors) if (name.includes('lora_B')) data.fill(0);
  const inputs = await write(root, base, adapter);
  await expect(mergeDirectories({ ...inputs, output: join(root, 'merged') })).rejects.toMatchObject(
    {
      code: 'merge.non-finite',
      message: expect.stringMatching(/layers.1.mlp.down_proj.*128 values/),
    },
  );
});

test('the kernel for bands is in the budget', async () => {
  const root = await temporaryDirectory();
  const lora = await write(join(root, 'a'), tinyBase(), tinyAdapter({ targets: TARGETS }));
  const dora = await write(join(root, 'b'), tinyBase(), doraAdapter({ targets: TARGETS }));
  const [less, more] = await Promise.all(
    [lora, dora].map(async (inputs) => resourcesFor(await planDirectories(inputs), 2, 262_144)),
  );
  expect(less?.bands).toBeUndefined();
  expect(more?.bands).toBeDefined();
  expect(more?.memoryBytes).toBeGreaterThan(less?.memoryBytes ?? 0);
  expect(more?.memoryBytes).toBeLessThan(MEMORY_BUDGET_BYTES_DEFAULT);
});
