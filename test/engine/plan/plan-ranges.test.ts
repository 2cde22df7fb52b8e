import { expect, test } from 'vitest';
import { sha256Of } from '../../../engine/canonical-json.ts';
import { formatPlan, type Plan, parsePlan, planDigest } from '../../../engine/plan/plan.ts';
import { planMerge } from '../../../engine/plan/plan-merge.ts';
import { memoryFiles, type RecordedRead } from '../../doubles/memory-files.ts';
import {
  adapterFiles,
  baseFiles,
  type FileMap,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';

const HEADER_PREFIX_BYTES = 8;

function headerEnd(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return HEADER_PREFIX_BYTES + Number(view.getBigUint64(0, true));
}

/** Plans over files whose weights may not be read; a file may be looked into to see what it is. */
async function planWithoutWeights(base: TinyModel, adapter: TinyModel) {
  const files = baseFiles(base);
  const mayRead = ({ path, offset, length }: RecordedRead): boolean => {
    const bytes = files.get(path);
    if (!path.endsWith('.safetensors') || bytes === undefined) return true;
    return offset + length <= headerEnd(bytes);
  };
  const source = memoryFiles('base', files, mayRead);
  const adapterSource = memoryFiles('adapter', adapterFiles(adapter));
  const plan = await planMerge(source, [{ id: 'a', ...adapterSource }], {});
  return { plan, files, source, adapterSource };
}

/** The planned range of a base tensor, as bytes of its file. */
function sourceBytes(plan: Plan, files: FileMap, name: string): Uint8Array | undefined {
  const tensor = plan.shards.flatMap((shard) => shard.tensors).find((each) => each.name === name);
  if (tensor === undefined) throw new Error(`the plan has no ${name}`);
  const { file, offset, byteLength } = tensor.from;
  return files.get(file)?.subarray(offset, offset + byteLength);
}

test('a plan is made from headers alone, each read at most twice', async () => {
  const { source, adapterSource } = await planWithoutWeights(
    tinyBase({ shards: 3 }),
    tinyAdapter(),
  );
  const weightReads = source.reads.filter(({ path }) => path.endsWith('.safetensors'));
  // The first bytes, which tell the length, and the header.
  expect(weightReads).toHaveLength(6);
  expect(source.reads.filter(({ path }) => path === 'config.json')).toHaveLength(1);
  expect(source.openCount()).toBe(0);
  expect(adapterSource.openCount()).toBe(0);
});

test('every planned range of the base holds the bytes of its tensor', async () => {
  const base = tinyBase({ shards: 3 });
  const { plan, files } = await planWithoutWeights(base, tinyAdapter());
  for (const { name, data } of base.tensors) {
    expect(sourceBytes(plan, files, name), name).toEqual(data);
  }
});

test('every planned factor holds the bytes of its half', async () => {
  const adapter = tinyAdapter({ dtype: 'BF16' });
  const { plan } = await planWithoutWeights(tinyBase(), adapter);
  const weights = adapterFiles(adapter).get('adapter_model.safetensors');
  const deltas = plan.shards.flatMap((shard) =>
    shard.tensors.flatMap(({ name, deltas = [] }) => deltas.map((delta) => ({ name, delta }))),
  );
  expect(deltas).toHaveLength(4);
  for (const { name, delta } of deltas) {
    const stem = `base_model.model.${name.replace(/\.weight$/, '')}`;
    for (const [half, reference] of [
      ['lora_A', delta.a],
      ['lora_B', delta.b],
    ] as const) {
      if (reference === undefined) throw new Error(`${name} has no ${half}`);
      const { offset, byteLength } = reference;
      const stored = adapter.tensors.find((each) => each.name === `${stem}.${half}.weight`);
      expect(weights?.subarray(offset, offset + byteLength)).toEqual(stored?.data);
    }
    expect(delta).toMatchObject({ rank: 4, alpha: 8, scaling: 2, transposed: false });
  }
});

test('the ranges of one layer are where its header puts them', async () => {
  const base = tinyBase();
  const { plan } = await planWithoutWeights(base, tinyAdapter());
  const [shard] = plan.shards;
  const q = shard?.tensors.find(({ name }) => name === 'model.layers.0.self_attn.q_proj.weight');
  // The embedding [100, 64] in BF16 comes before it, in the base and in the output.
  const embeddingBytes = 100 * 64 * 2;
  const inputHeader = headerEnd(baseFiles(base).get('model.safetensors') ?? new Uint8Array(8));
  expect(q?.from).toMatchObject({ offset: inputHeader + embeddingBytes, byteLength: 64 * 64 * 2 });
  const outputHeader = shard?.tensors[0]?.offset ?? 0;
  expect(q).toMatchObject({ offset: outputHeader + embeddingBytes, byteLength: 64 * 64 * 2 });
});

test('a plan is read back as it was written', async () => {
  const { plan } = await planWithoutWeights(tinyBase({ shards: 2 }), tinyAdapter());
  const text = formatPlan(plan);
  const digest = planDigest(plan);
  expect(sha256Of(text)).toBe(digest);
  const copy = parsePlan(text, digest, 'plan.json');
  expect(copy).toEqual(plan);
  expect(formatPlan(copy)).toBe(text);
  const changed = text.replace('"BF16"', '"F16"');
  for (const [other, itsDigest] of [
    [changed, digest],
    [text, sha256Of(changed)],
    // The right digest, but another value than any plan of this version has.
    [changed.replace('"engineFormat":1', '"engineFormat":0'), undefined],
    ['{}', undefined],
    ['', undefined],
  ] as const) {
    expect(() => parsePlan(other, itsDigest ?? sha256Of(other), 'plan.json')).toThrow(
      expect.objectContaining({
        code: 'plan.invalid',
        message: expect.stringContaining('plan.json'),
      }),
    );
  }
});
