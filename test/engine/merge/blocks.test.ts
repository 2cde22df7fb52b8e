/** Blocks of rows: the same weights and adapters in two layouts must give the same values. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { MergeOptions, Plan } from '../../../engine/plan/plan.ts';
import { verifyMerge } from '../../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { dequantizeBase } from '../../doubles/dequantized-base.ts';
import { doraAdapter } from '../../doubles/dora-adapter.ts';
import { fuseProjections, inOne } from '../../doubles/fused-projections.ts';
import { mergeDirectories, readFiles, writeFiles } from '../../doubles/merge-directories.ts';
import { quantizeBase } from '../../doubles/quantized-weight.ts';
import { Random } from '../../doubles/random.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import {
  expertModulesAdapter,
  fusedExpertsAdapter,
  type TinyExpertsOptions,
  tinyExperts,
} from '../../doubles/tiny-experts.ts';
import {
  adapterFiles,
  baseFiles,
  type TinyModel,
  tinyAdapter,
  tinyBase,
} from '../../doubles/tiny-model.ts';
import { verifyAllRows } from '../../doubles/verify-all-rows.ts';
import { concatenate, type TestTensor } from '../../doubles/write-safetensors.ts';
import { type LoadedTensor, loadTensors } from '../../golden/golden-case.ts';

const PAGE_BYTES = 4096;
const LINEAR: MergeOptions = { combination: { method: 'linear', weights: [0.5, -2] } };
const SIZES = { hidden: 96, intermediate: 40, experts: 6, layers: 2 };

/** Merges in two manners, verifies every row, and returns the tensors. */
async function merge(
  base: TinyModel,
  adapters: readonly TinyModel[],
  options: MergeOptions = {},
): Promise<ReadonlyMap<string, LoadedTensor>> {
  const root = await temporaryDirectory();
  const at = (name: string): string => join(root, name);
  await writeFiles(at('base'), baseFiles(base));
  const ids = adapters.map((_, index) => 'ab'[index]!);
  for (const [index, id] of ids.entries()) await writeFiles(at(id), adapterFiles(adapters[index]!));
  const others = Object.fromEntries(ids.slice(1).map((id) => [id, at(id)]));
  const inputs = { base: at('base'), adapter: at('a'), others, options };
  const { plan } = await mergeDirectories({ ...inputs, output: at('one') });
  const cut = { threads: 3, windowBytes: PAGE_BYTES };
  await mergeDirectories({ ...inputs, output: at('many'), ...cut });
  expect(await readFiles(at('many'))).toEqual(await readFiles(at('one')));
  const roots = { base: at('base'), ...Object.fromEntries(ids.map((id) => [id, at(id)])) };
  await verifyAllRows(plan, roots, at('one'));
  const files = await openModelDirectory(at('one'));
  await verifyMerge({ directory: at('one'), files, recompute: { plan, roots } });
  const weights = (await readdir(at('one'))).filter((name) => name.endsWith('.safetensors'));
  return loadTensors(at('one'), weights);
}

/** The same experts, fused. */
function fuseExperts(
  model: TinyModel,
  options: Required<Pick<TinyExpertsOptions, 'hidden'>>,
): TinyModel {
  const named = new Map(model.tensors.map((tensor) => [tensor.name, tensor]));
  const stems = new Set(model.tensors.map(({ name }) => name.replace(/\.\d+\.\w+\.weight$/, '')));
  const { hidden } = options;
  const tensors = [...stems].flatMap((stem) => {
    const of = (...leaves: string[]): TestTensor[] =>
      Array.from({ length: SIZES.experts }, (_, e) =>
        leaves.map((leaf) => named.get(`${stem}.${e}.${leaf}.weight`)!),
      ).flat();
    const { experts, intermediate } = SIZES;
    return [
      inOne(`${stem}.gate_up_proj`, of('gate_proj', 'up_proj'), [
        experts,
        2 * intermediate,
        hidden,
      ]),
      inOne(`${stem}.down_proj`, of('down_proj'), [experts, hidden, intermediate]),
    ];
  });
  return { ...model, tensors };
}

function bytesOf(tensors: ReadonlyMap<string, LoadedTensor>, ...names: string[]): Uint8Array {
  return concatenate(...names.map((name) => tensors.get(name)!.bytes));
}

describe.each(['BF16', 'F16', 'F32'] as const)('in %s', (dtype) => {
  test('experts fused and one by one take fused and separate deltas alike', async () => {
    const base = tinyExperts({ ...SIZES, dtype });
    const adapters = [fusedExpertsAdapter({ ...SIZES, rank: 5 }), expertModulesAdapter(SIZES)];
    const apart = await merge(base, adapters, LINEAR);
    const fused = await merge(fuseExperts(base, SIZES), adapters, LINEAR);
    expect(fused.size).toBe(4);
    for (const [name, tensor] of fused) {
      const stem = name.slice(0, name.lastIndexOf('.'));
      const leaves = name.endsWith('down_proj') ? ['down_proj'] : ['gate_proj', 'up_proj'];
      const names = Array.from({ length: SIZES.experts }, (_, e) =>
        leaves.map((leaf) => `${stem}.${e}.${leaf}.weight`),
      ).flat();
      expect(Buffer.compare(tensor.bytes, bytesOf(apart, ...names)), name).toBe(0);
    }
  });

  test.each([
    ['LoRA', tinyAdapter],
    ['DoRA', doraAdapter],
  ] as const)('%s on some of the projections changes their rows alone', async (_, make) => {
    const base = tinyBase({ dtype });
    const adapter = make({ targets: ['self_attn.q_proj', 'self_attn.v_proj', 'mlp.up_proj'] });
    const apart = await merge(base, [adapter]);
    const fused = await merge(fuseProjections(base), [adapter]);
    for (const layer of [0, 1]) {
      const at = (path: string): string => `model.layers.${layer}.${path}.weight`;
      const qkv = ['q_proj', 'k_proj', 'v_proj'].map((name) => at(`self_attn.${name}`));
      const mlp = ['gate_proj', 'up_proj'].map((name) => at(`mlp.${name}`));
      expect(Buffer.compare(bytesOf(fused, at('self_attn.qkv_proj')), bytesOf(apart, ...qkv))).toBe(
        0,
      );
      expect(Buffer.compare(bytesOf(fused, at('mlp.gate_up_proj')), bytesOf(apart, ...mlp))).toBe(
        0,
      );
    }
  });
});

test('parts and a fused layer are added up, each to its rows', async () => {
  const base = fuseProjections(tinyBase({ dtype: 'F32' }));
  const parts = tinyAdapter({ targets: ['self_attn.q_proj', 'self_attn.v_proj'] });
  const whole = tinyAdapter({ targets: ['mlp.gate_proj'], rank: 7 });
  whole.tensors = whole.tensors.map((tensor) => ({
    ...tensor,
    name: tensor.name.replace('mlp.gate_proj', 'self_attn.qkv_proj'),
  }));
  whole.config['target_modules'] = ['qkv_proj'];
  const merged = await merge(base, [parts, whole], LINEAR);
  expect(merged.size).toBe(base.tensors.length);
});

test.each([
  ['nf4', tinyAdapter],
  ['nf4-double', doraAdapter],
  ['int8', doraAdapter],
] as const)('projections fused in a base of %s are what they dequantise to', async (kind, make) => {
  const base = fuseProjections(tinyBase());
  quantizeBase(base, new Random(41), kind);
  const adapter = make({ targets: ['self_attn.q_proj', 'self_attn.v_proj', 'mlp.up_proj'] });
  const merged = await merge(base, [adapter], { mergeOnto: 'dequantized', dtype: 'float32' });
  const expected = await merge(dequantizeBase(base), [adapter], { dtype: 'float32' });
  expect(merged).toEqual(expected);
});

test('verification sees one expert in the place of another', async () => {
  const root = await temporaryDirectory();
  const [base, adapter, output] = ['base', 'a', 'merged'].map((name) => join(root, name)) as [
    string,
    string,
    string,
  ];
  await writeFiles(base, baseFiles(tinyExperts({ fused: true, dtype: 'F32' })));
  await writeFiles(adapter, adapterFiles(fusedExpertsAdapter()));
  const { plan } = await mergeDirectories({ base, adapter, output });
  const wrong = structuredClone(plan);
  const { deltas } = wrong.shards[0]!.tensors.find(({ name }) => name.endsWith('down_proj'))!;
  deltas![1]!.bColumns = deltas![2]!.bColumns;
  const files = await openModelDirectory(output);
  const verify = (as: Plan): Promise<unknown> =>
    verifyMerge({ directory: output, files, recompute: { plan: as, roots: { base, a: adapter } } });
  await expect(verify(plan)).resolves.toBeDefined();
  await expect(verify(wrong)).rejects.toMatchObject({ code: 'verify.recomputation-mismatch' });
});
