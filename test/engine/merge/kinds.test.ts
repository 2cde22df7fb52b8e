import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readAdapter } from '../../../engine/adapters/adapter.ts';
import { scanAdapter } from '../../../engine/adapters/scan-adapter.ts';
import { resourcesFor } from '../../../engine/merge/resources.ts';
import {
  formatPlan,
  type PlannedTensor,
  parsePlan,
  planDigest,
} from '../../../engine/plan/plan.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { decodeTensor, type FloatDtypeName } from '../../doubles/decode-tensor.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { KIND_NAMES, type KindName, kindAdapter } from '../../doubles/kind-adapter.ts';
import { memoryFiles } from '../../doubles/memory-files.ts';
import {
  type Directories,
  mergeDirectories,
  planDirectories,
  writeFiles,
} from '../../doubles/merge-directories.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  adapterFiles,
  alter,
  baseFiles,
  randomTensor,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { loadTensors } from '../../golden/golden-case.ts';

const TARGETS = ['self_attn.q_proj', 'mlp.down_proj'] as const;
const QUERY = 'model.layers.0.self_attn.q_proj.weight';

async function write(
  base: TinyModel,
  adapter: TinyModel,
  others: Readonly<Record<string, TinyModel>> = {},
): Promise<Directories & { readonly root: string }> {
  const root = await temporaryDirectory();
  const inputs = { root, base: join(root, 'base'), adapter: join(root, 'adapter') };
  await writeFiles(inputs.base, baseFiles(base));
  await writeFiles(inputs.adapter, adapterFiles(adapter));
  const paths: Record<string, string> = {};
  for (const [id, model] of Object.entries(others)) {
    paths[id] = join(root, id);
    await writeFiles(join(root, id), adapterFiles(model));
  }
  return { ...inputs, others: paths };
}

/** DoRA on a layer stored [in, out] and on the embedding: norms of columns. */
function columnDora(): { base: TinyModel; adapter: TinyModel } {
  const base = tinyBase();
  const adapter = doraAdapter({ targets: TARGETS });
  base.config['model_type'] = 'gpt2';
  adapter.config['target_modules'] = ['c_attn', 'down_proj', 'embed_tokens'];
  for (const model of [base, adapter]) {
    model.tensors = model.tensors.map((each) => ({
      ...each,
      name: each.name.replace('self_attn.q_proj', 'attn.c_attn'),
    }));
  }
  const random = new Random(8);
  const stem = 'base_model.model.model.embed_tokens.lora_';
  adapter.tensors.push(
    randomTensor(random, `${stem}embedding_A`, 'F32', [4, 100]),
    randomTensor(random, `${stem}embedding_B`, 'F32', [64, 4]),
    randomTensor(random, `${stem}magnitude_vector`, 'F32', [64]),
  );
  return { base, adapter };
}

const MERGES: readonly (readonly [string, () => { base: TinyModel; adapter: TinyModel }])[] = [
  ...KIND_NAMES.map((kind) => [kind, () => withBase(kindAdapter(kind))] as const),
  ['VERA in BF16', () => withBase(kindAdapter('VERA', 'BF16'))],
  ['ADALORA in F16', () => withBase(kindAdapter('ADALORA', 'F16'))],
  ['LOKR in BF16', () => withBase(kindAdapter('LOKR', 'BF16'))],
  ['OFT in BF16', () => withBase(kindAdapter('OFT', 'BF16'))],
  ['DoRA by columns', columnDora],
];

function withBase(adapter: TinyModel): { base: TinyModel; adapter: TinyModel } {
  return { base: tinyBase(), adapter };
}

describe('the same bytes wherever windows end, and verified:', () => {
  test.each(MERGES)('%s', async (_, make) => {
    const { base, adapter } = make();
    const inputs = await write(base, adapter);
    const outputs: Buffer[] = [];
    for (const [threads, windowBytes] of [
      [1, 4_194_304],
      [3, 4096],
    ] as const) {
      const output = join(inputs.root, `merged-${threads}`);
      const { plan } = await mergeDirectories({ ...inputs, output, threads, windowBytes });
      const roots = { base: inputs.base, a: inputs.adapter };
      const files = await openModelDirectory(output);
      await verifyMerge({ directory: output, files, recompute: { plan, roots } });
      outputs.push(await readFile(join(output, 'model.safetensors')));
    }
    expect(outputs[0]?.equals(outputs[1] ?? Buffer.alloc(0))).toBe(true);
  });
});

/** Makes the plan speak of other numbers than those that were merged. */
function shift(tensor: PlannedTensor): boolean {
  for (const { rankScale, outScale, magnitude, transposed } of tensor.deltas ?? []) {
    const vector = outScale ?? rankScale ?? (transposed ? magnitude : undefined);
    if (vector !== undefined) vector.offset -= 8;
    return vector !== undefined;
  }
  const [change] = tensor.changes ?? [];
  if (change === undefined) return false;
  if (change.kind === 'hadamard') change.second.b.offset -= 8;
  else if (change.kind === 'kronecker') change.left.a.offset -= 8;
  else if (change.kind === 'scale') change.vector.offset -= 8;
  else change.blocks.offset -= 8;
  return true;
}

describe('rows that were made from other numbers are found:', () => {
  test.each(MERGES)('%s', async (_, make) => {
    const { base, adapter } = make();
    const inputs = await write(base, adapter);
    const output = join(inputs.root, 'merged');
    const { plan } = await mergeDirectories({ ...inputs, output });
    const other = structuredClone(plan);
    const shifted = other.shards.flatMap(({ tensors }) => tensors.filter(shift));
    expect(shifted.length).toBeGreaterThan(0);
    const roots = { base: inputs.base, a: inputs.adapter };
    const files = await openModelDirectory(output);
    await expect(
      verifyMerge({ directory: output, files, recompute: { plan: other, roots } }),
    ).rejects.toMatchObject({ code: 'verify.recomputation-mismatch' });
  });
});

describe('combined alone at weight 1 an adapter is itself:', () => {
  test.each(MERGES)('%s', async (_, make) => {
    const { base, adapter } = make();
    const inputs = await write(base, adapter);
    const plain = await planDirectories(inputs);
    // What a plan says of it survives the file that it is kept in.
    expect(parsePlan(formatPlan(plain), planDigest(plain), 'plan.json')).toEqual(plain);
    for (const method of ['linear', 'cat', 'sequential'] as const) {
      const combination = method === 'sequential' ? { method } : { method, weights: [1] };
      expect(await planDirectories(inputs, { combination })).toEqual(plain);
    }
  });
});

async function mergedQuery(
  first: TinyModel,
  second: TinyModel,
  options: Parameters<typeof mergeDirectories>[0]['options'],
): Promise<Float64Array> {
  const inputs = await write(tinyBase({ dtype: 'F32' }), first, { b: second });
  const output = join(inputs.root, 'merged');
  const { plan } = await mergeDirectories({ ...inputs, output, ...(options && { options }) });
  const roots = { base: inputs.base, a: inputs.adapter, ...inputs.others };
  const files = await openModelDirectory(output);
  await verifyMerge({ directory: output, files, recompute: { plan, roots } });
  return query(await loadTensors(output, ['model.safetensors']));
}

function query(tensors: Awaited<ReturnType<typeof loadTensors>>): Float64Array {
  const { bytes, dtype } = tensors.get(QUERY) ?? { bytes: new Uint8Array(), dtype: 'F32' };
  return decodeTensor(bytes, dtype as FloatDtypeName);
}

async function mergedAlone(adapter: TinyModel): Promise<Float64Array> {
  const inputs = await write(tinyBase({ dtype: 'F32' }), adapter);
  const output = join(inputs.root, 'merged');
  await mergeDirectories({ ...inputs, output });
  return query(await loadTensors(output, ['model.safetensors']));
}

function expectClose(one: Float64Array, other: Float64Array): void {
  expect(one.length).toBe(other.length);
  const worst = one.reduce(
    (max, value, i) => Math.max(max, Math.abs(value - (other[i] ?? 1e9))),
    0,
  );
  expect(worst).toBeLessThan(1e-7);
}

test.each<[KindName, KindName | 'LORA']>([
  ['LOHA', 'LORA'],
  ['LOKR', 'LOHA'],
  ['ADALORA', 'VERA'],
  ['VERA', 'LOKR'],
])('%s and %s are added up by their weights', async (first, second) => {
  const base = query(await baseTensors());
  const one = kindAdapter(first);
  const other =
    second === 'LORA' ? tinyAdapter({ targets: TARGETS }) : kindAdapter(second, 'F32', 5);
  const [alone, otherAlone] = [await mergedAlone(one), await mergedAlone(other)];
  const sum = await mergedQuery(one, other, {
    combination: { method: 'linear', weights: [2, -0.5] },
  });
  const wanted = base.map(
    (value, i) => value + 2 * ((alone[i] ?? 0) - value) - 0.5 * ((otherAlone[i] ?? 0) - value),
  );
  expectClose(sum, wanted);
});

async function baseTensors() {
  const inputs = await write(tinyBase({ dtype: 'F32' }), tinyAdapter());
  return loadTensors(inputs.base, ['model.safetensors']);
}

test.each<[string, TinyModel, TinyModel]>([
  ['LoRA and (IA)³', tinyAdapter({ targets: TARGETS }), kindAdapter('IA3')],
  ['OFT and LoHa', kindAdapter('OFT'), kindAdapter('LOHA')],
  ['OFT and (IA)³', kindAdapter('OFT'), kindAdapter('IA3')],
  ['DoRA and LoKr', doraAdapter({ targets: TARGETS }), kindAdapter('LOKR')],
])('%s in turn are merged in their order, and not added up', async (_, first, second) => {
  const options = { combination: { method: 'sequential' } } as const;
  const [there, back] = [
    await mergedQuery(first, second, options),
    await mergedQuery(second, first, options),
  ];
  const isTurning = [first, second].every(({ config }) =>
    ['IA3', 'OFT'].includes(String(config['peft_type'])),
  );
  // (IA)³ scales the rows of this weight and OFT turns each of them: either may come first.
  if (isTurning) expectClose(there, back);
  else expect(there).not.toEqual(back);
  await expect(
    mergedQuery(first, second, { combination: { method: 'linear' } }),
  ).rejects.toMatchObject({
    code: 'adapter.contradiction',
    message: expect.stringContaining('in turn (combination.method: sequential)'),
  });
  await expect(
    mergedQuery(first, second, { combination: { method: 'linear', weights: [1, 0.5] } }),
  ).rejects.toMatchObject({ code: expect.stringMatching(/contradiction|option-invalid/) });
});

test('a method that combines low-rank deltas only is told so of LoHa and LoKr', async () => {
  const parameters = { density: 0.5 };
  await expect(
    mergedQuery(kindAdapter('LOHA'), kindAdapter('LOKR'), {
      combination: { method: 'ties', parameters },
    }),
  ).rejects.toMatchObject({
    code: 'plan.option-invalid',
    message: expect.stringMatching(/and ties combines low-rank deltas.*Combine by linear/),
  });
});

test('a manifest says of adapters that were taken in turn that they were, and only of these', async () => {
  const combination = { method: 'sequential' } as const;
  const lora = tinyAdapter({ targets: TARGETS });
  const elsewhere = tinyAdapter({ targets: ['self_attn.v_proj'], seed: 5 });
  for (const [first, second, method] of [
    [lora, kindAdapter('IA3'), 'sequential'],
    [doraAdapter({ targets: TARGETS }), lora, 'sequential'],
    [kindAdapter('OFT'), elsewhere, 'linear'],
    [lora, kindAdapter('LOHA'), 'linear'],
  ] as const) {
    const inputs = await write(tinyBase(), first, { b: second });
    const output = join(inputs.root, 'output');
    const { plan } = await mergeDirectories({ ...inputs, output, options: { combination } });
    expect(plan.options.combination).toEqual({ method, weights: [1, 1] });
    const manifest = JSON.parse(await readFile(join(output, 'weldline.json'), 'utf8'));
    expect(manifest.options).toMatchObject({ combination: method, weights: '1, 1' });
    expect(parsePlan(formatPlan(plan), planDigest(plan), 'plan.json')).toEqual(plan);
  }
});

test('(IA)³ after LoRA scales what LoRA made', async () => {
  const [lora, ia3] = [tinyAdapter({ targets: TARGETS }), kindAdapter('IA3')];
  const alone = await mergedAlone(lora);
  const stem = 'base_model.model.model.layers.0.self_attn.q_proj.ia3_l';
  const vector = ia3.tensors.find(({ name }) => name === stem);
  const factors = decodeTensor(vector?.data ?? new Uint8Array(), 'F32');
  const both = await mergedQuery(lora, ia3, { combination: { method: 'sequential' } });
  expectClose(
    both,
    alone.map((value, i) => value * (factors[Math.floor(i / 64)] ?? 0)),
  );
});

test('an OFT of zeros, an AdaLoRA without singular values and a LoKr of zeros are told of', async () => {
  for (const [kind, part] of [
    ['OFT', 'oft_R.weight'],
    ['ADALORA', 'lora_E'],
    ['LOKR', 'lokr_w2_b'],
    ['VERA', 'vera_lambda_b'],
  ] as const) {
    const adapter = kindAdapter(kind);
    const name = `base_model.model.model.layers.1.mlp.down_proj.${part}`;
    const size = adapter.tensors.find((each) => each.name === name)?.data.length ?? 0;
    alter(adapter, name, { data: new Uint8Array(size) });
    const { files } = memoryFiles('adapter', adapterFiles(adapter));
    const read = await readAdapter('a', files);
    const [warning] = await scanAdapter(read, await files.open('adapter_model.safetensors'));
    expect(warning).toContain('does not change 1 of its 4 modules');
    expect(warning).toContain('model.layers.1.mlp.down_proj');
  }
});

test('values that are not finite are found in every tensor of a kind', async () => {
  for (const kind of KIND_NAMES) {
    for (const { name, data } of kindAdapter(kind).tensors) {
      const adapter = kindAdapter(kind);
      const spoilt = Uint8Array.from(data);
      spoilt.set([0, 0, 0x80, 0x7f], 0);
      alter(adapter, name, { data: spoilt });
      const { files } = memoryFiles('adapter', adapterFiles(adapter));
      const read = await readAdapter('a', files);
      await expect(
        scanAdapter(read, await files.open('adapter_model.safetensors')),
      ).rejects.toMatchObject({ code: 'adapter.non-finite' });
    }
  }
});

test('what steps and norms keep is in the budget', async () => {
  const { base, adapter } = columnDora();
  const [plain, dora, oft] = await Promise.all(
    [
      withBase(tinyAdapter({ targets: TARGETS })),
      { base, adapter },
      withBase(kindAdapter('OFT')),
    ].map(async (each) => planDirectories(await write(each.base, each.adapter))),
  );
  const bytes = (plan: typeof plain) => resourcesFor(plan!, 2, 262_144).memoryBytes;
  expect(bytes(dora)).toBeGreaterThan(bytes(plain));
  // Two threads keep sixteen blocks of 8 x 8 and more.
  expect(bytes(oft) - bytes(plain)).toBeGreaterThan(2 * 16 * 64 * 8);
});
