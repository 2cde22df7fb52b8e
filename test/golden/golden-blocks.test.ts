/** Adapters and bases that cut the same weights differently, against what PEFT merges. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import type { Plan, PlannedTensor } from '../../engine/plan/plan.ts';
import { verifyMerge } from '../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { decodeTensor, ordinalsOf } from '../doubles/decode-tensor.ts';
import { mergeDirectories, readFiles } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { verifyAllRows } from '../doubles/verify-all-rows.ts';
import { type TestTensor, writeSafetensors } from '../doubles/write-safetensors.ts';
import { type LoadedTensor, loadTensors } from './golden-case.ts';

const CASES = fileURLToPath(new URL('./blocks', import.meta.url));
const PAGE_BYTES = 4096;

/** Base and what PEFT makes of it, and the rules that the plan must name. */
const EXPECTED: Readonly<Record<string, readonly string[]>> = {
  mixtral_fused: [
    'fused experts into w1, w3 of each expert',
    'fused experts into w2 of each expert',
  ],
  mixtral_square: [
    'fused experts into w1, w3 of each expert',
    'fused experts into w2 of each expert',
  ],
  qwen3_moe_fused: [
    'fused experts into gate_proj, up_proj of each expert',
    'fused experts into down_proj of each expert',
  ],
  gpt_oss_fused: ['fused experts'],
  mixtral_one_by_one: [],
  phi3_separate: [
    'q_proj, k_proj, v_proj into the rows of qkv_proj',
    'gate_proj, up_proj into the rows of gate_up_proj',
  ],
  phi3_separate_dora: [
    'q_proj, k_proj, v_proj into the rows of qkv_proj',
    'gate_proj, up_proj into the rows of gate_up_proj',
  ],
  llama_fused: [
    'the rows of qkv_proj into q_proj, k_proj, v_proj',
    'the rows of gate_up_proj into gate_proj, up_proj',
  ],
  llama_fused_dora: [
    'the rows of qkv_proj into q_proj, k_proj, v_proj',
    'the rows of gate_up_proj into gate_proj, up_proj',
  ],
  llama_replicated: ['layer_replication'],
};

/** Elements that differ from PEFT's, by one rounding; none in the others. */
const DIFFERING_ELEMENTS: Readonly<Record<string, number>> = {};

async function tensorsOf(directory: string): Promise<Map<string, LoadedTensor>> {
  const files = (await readdir(directory)).filter((name) => name.endsWith('.safetensors'));
  return loadTensors(directory, files);
}

interface Golden {
  readonly base: string;
  readonly adapter: string;
  readonly merged: ReadonlyMap<string, LoadedTensor>;
}

async function goldenOf(name: string, base = 'base', merged = 'merged'): Promise<Golden> {
  const folder = join(CASES, name);
  return {
    base: join(folder, base),
    adapter: join(folder, 'adapter'),
    merged: await loadTensors(folder, [`${merged}.safetensors`]),
  };
}

/** Merged tensors are PEFT's but for one rounding of a few; all others are the base's. */
function compare(ours: LoadedTensor, expected: LoadedTensor): number {
  const { name, dtype, shape } = expected;
  expect({ name, dtype: ours.dtype, shape: ours.shape }).toEqual({ name, dtype, shape });
  const theirs = ordinalsOf(expected.bytes, 'BF16');
  const distances = ordinalsOf(ours.bytes, 'BF16').map((place, i) => Math.abs(place - theirs[i]!));
  expect(Math.max(...distances), name).toBeLessThanOrEqual(1);
  return distances.filter((distance) => distance > 0).length;
}

async function mergeGolden({ base, adapter, merged }: Golden, name: string): Promise<Plan> {
  const output = join(await temporaryDirectory(), 'merged');
  const { plan } = await mergeDirectories({ base, adapter, output, threads: 2 });
  const before = await tensorsOf(base);
  let differing = 0;
  for (const [each, ours] of await tensorsOf(output)) {
    const expected = merged.get(each);
    if (expected !== undefined) differing += compare(ours, expected);
    else expect(Buffer.compare(ours.bytes, before.get(each)!.bytes), each).toBe(0);
  }
  expect(differing).toBe(DIFFERING_ELEMENTS[name] ?? 0);
  const changed = plan.shards.flatMap(({ tensors }) => tensors).filter(({ deltas }) => deltas);
  const isListed = ({ name: each }: PlannedTensor): boolean => merged.has(each);
  expect(changed.every(isListed)).toBe(true);
  const roots = { base, a: adapter };
  await verifyAllRows(plan, roots, output);
  const files = await openModelDirectory(output);
  await verifyMerge({ directory: output, files, recompute: { plan, roots } });
  return plan;
}

describe.each(Object.entries(EXPECTED))('%s', (name, rules) => {
  test('is merged as PEFT merges it', async () => {
    const plan = await mergeGolden(await goldenOf(name), name);
    expect(plan.rules.map(({ rule }) => rule).sort()).toEqual(['exact', ...rules].sort());
  });

  test('does not depend on threads, windows and shards', async () => {
    const { base, adapter } = await goldenOf(name);
    const root = await temporaryDirectory();
    const merge = { base, adapter };
    await mergeDirectories({ ...merge, output: join(root, 'one') });
    const windowBytes = PAGE_BYTES;
    await mergeDirectories({ ...merge, output: join(root, 'many'), threads: 3, windowBytes });
    expect(await readFiles(join(root, 'many'))).toEqual(await readFiles(join(root, 'one')));
  });
});

test('every case is here', async () => {
  expect((await readdir(CASES)).sort()).toEqual(Object.keys(EXPECTED).sort());
});

test('experts one by one are merged into fused ones', async () => {
  const golden = await goldenOf('mixtral_one_by_one', 'base_fused', 'merged_fused');
  const plan = await mergeGolden(golden, 'mixtral_one_by_one');
  expect(plan.rules.map(({ rule }) => rule)).toContain(
    'experts one by one into the rows of fused ones',
  );
});

test('the replicated model has a configuration of its number of layers', async () => {
  const { base, adapter } = await goldenOf('llama_replicated');
  const output = join(await temporaryDirectory(), 'merged');
  await mergeDirectories({ base, adapter, output });
  const [before, after] = await Promise.all(
    [base, output].map(async (at) => JSON.parse(await readFile(join(at, 'config.json'), 'utf8'))),
  );
  expect(after).toEqual({ ...before, num_hidden_layers: 3 });
  const layers = [...(await tensorsOf(output)).keys()].map(
    (name) => /layers\.(\d+)/.exec(name)?.[1],
  );
  expect(new Set(layers)).toEqual(new Set([undefined, '0', '1', '2']));
});

interface Factor {
  readonly values: Float64Array;
  readonly rows: number;
  readonly columns: number;
}

function factorOf({ bytes, shape: [rows = 0, columns = 0] }: LoadedTensor): Factor {
  return { values: decodeTensor(bytes, 'F32'), rows, columns };
}

/** A factor as a tensor; element (row, column) by a function. */
function factor(
  name: string,
  [rows, columns]: readonly [number, number],
  at: (row: number, column: number) => number,
): TestTensor {
  const values = Float32Array.from({ length: rows * columns }, (_, index) =>
    at(Math.floor(index / columns), index % columns),
  );
  return { name, dtype: 'F32', shape: [rows, columns], data: new Uint8Array(values.buffer) };
}

/** The factors of experts as PEFT before 0.19 stored them: A and B of the transposed delta. */
function asBefore019(a: LoadedTensor, b: LoadedTensor, experts: number): TestTensor[] {
  const [left, right] = [factorOf(a), factorOf(b)];
  const rank = left.rows / experts;
  return [
    // Row e · r + k is the column k · E + e of B.
    factor(a.name, [left.rows, right.rows], (row, column) => {
      const [expert, k] = [Math.floor(row / rank), row % rank];
      return right.values[column * right.columns + k * experts + expert]!;
    }),
    // Column k · E + e is the row e · r + k of A.
    factor(b.name, [left.columns, right.columns], (row, column) => {
      const [k, expert] = [Math.floor(column / experts), column % experts];
      return left.values[(expert * rank + k) * left.columns + row]!;
    }),
  ];
}

async function writeAsBefore019(adapter: string, into: string, config: object): Promise<void> {
  await mkdir(into);
  const tensors = [...(await tensorsOf(adapter)).values()];
  const rewritten = tensors.flatMap((tensor) => {
    if (!tensor.name.includes('experts')) return [{ ...tensor, data: tensor.bytes }];
    if (tensor.name.includes('lora_B')) return [];
    const b = tensors.find(({ name }) => name === tensor.name.replace('lora_A', 'lora_B'));
    return asBefore019(tensor, b!, 4);
  });
  await writeFile(join(into, 'adapter_model.safetensors'), writeSafetensors(rewritten));
  const text = await readFile(join(adapter, 'adapter_config.json'), 'utf8');
  const changed = { ...(JSON.parse(text) as object), ...config };
  await writeFile(join(into, 'adapter_config.json'), JSON.stringify(changed));
}

describe('experts of an adapter that PEFT saved before version 0.19', () => {
  test.each(['mixtral_fused', 'mixtral_square', 'qwen3_moe_fused'])('%s', async (name) => {
    const { base, adapter } = await goldenOf(name);
    const root = await temporaryDirectory();
    const before = join(root, 'adapter');
    await writeAsBefore019(adapter, before, { peft_version: '0.18.1' });
    await mergeDirectories({ base, adapter, output: join(root, 'as-now') });
    const { plan } = await mergeDirectories({
      base,
      adapter: before,
      output: join(root, 'merged'),
    });
    const [now, then] = [
      await tensorsOf(join(root, 'as-now')),
      await tensorsOf(join(root, 'merged')),
    ];
    expect(then).toEqual(now);
    await verifyAllRows(plan, { base, a: before }, join(root, 'merged'));
  });
});
