import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { combineFactors } from '../../engine/factors/combine-factors.ts';
import type { Combination, CombinationMethod } from '../../engine/plan/combination.ts';
import type { Plan } from '../../engine/plan/plan.ts';
import { verifyMerge } from '../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { decodeTensor, type FloatDtypeName, ordinalsOf } from '../doubles/decode-tensor.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { loadTensors } from './golden-case.ts';

const FOLDER = fileURLToPath(new URL('./combinations', import.meta.url));

interface CombinationCase {
  readonly name: string;
  readonly method: string;
  readonly adapters: readonly string[];
  readonly weights: readonly number[];
  readonly options: {
    readonly svd_rank?: number;
    readonly density?: number;
    readonly majority_sign_method?: 'total' | 'frequency';
  };
  readonly models: readonly string[];
}

const CASES = JSON.parse(
  await readFile(join(FOLDER, 'cases.json'), 'utf8'),
) as readonly CombinationCase[];

/** Under other names the same numbers. */
const METHODS: Readonly<Record<string, readonly CombinationMethod[]>> = {
  cat: ['cat', 'peft_cat', 'linear'],
  svd: ['svd', 'peft_svd'],
  linear: ['peft_linear'],
  ties: ['peft_ties'],
  magnitude_prune: ['peft_magnitude_prune'],
};

const RUNS = CASES.flatMap((each) =>
  each.models.flatMap((model) =>
    (METHODS[each.method] ?? []).map((method) => ({ ...each, model, method, of: each.method })),
  ),
);
type Run = (typeof RUNS)[number];

/**
 * 16-bit elements compared, and those that PEFT rounds to the other neighbour: 8 of 53 thousand, where
 * deltas are as large as their weights.
 */
const totals = { count: 0, differing: 0 };

async function merge({ model, method, adapters, weights, options }: Run) {
  const place = (name: string): string => join(FOLDER, model, name);
  const { svd_rank: rank, density, majority_sign_method: majoritySign } = options;
  const parameters = { rank, density, majoritySign };
  const combination: Combination = { method, weights, parameters };
  const [first = '', ...rest] = adapters;
  const others = Object.fromEntries(rest.map((name) => [name, place(name)]));
  const roots = { base: place('base'), a: place(first), ...others };
  const output = join(await temporaryDirectory(), 'merged');
  const { plan } = await mergeDirectories({
    base: roots.base,
    adapter: roots.a,
    others,
    output,
    options: { combination },
    threads: 2,
  });
  const files = await openModelDirectory(output);
  const { rowsRecomputed } = await verifyMerge({
    directory: output,
    files,
    recompute: { plan, roots },
  });
  expect(rowsRecomputed).toBeGreaterThan(5);
  return { plan, roots, merged: await loadTensors(output, ['model.safetensors']) };
}

describe('merged as PEFT merges what add_weighted_adapter makes', () => {
  test.each(RUNS)('$model $name by $method', async (run) => {
    const { plan, roots, merged } = await merge(run);
    const folder = join(FOLDER, run.model, run.name);
    const expected = await loadTensors(folder, ['merged.safetensors']);
    const base = await loadTensors(roots.base, ['model.safetensors']);
    for (const [name, tensor] of merged) {
      const golden = expected.get(name);
      if (golden === undefined) {
        expect(Buffer.compare(tensor.bytes, base.get(name)?.bytes ?? Buffer.of()), name).toBe(0);
        continue;
      }
      const dtype = tensor.dtype as FloatDtypeName;
      const [ours, theirs] = [tensor, golden].map(({ bytes }) => decodeTensor(bytes, dtype));
      const before = decodeTensor(base.get(name)?.bytes ?? new Uint8Array(), dtype);
      const delta = Math.hypot(...theirs!.map((value, i) => value - before[i]!));
      const distance = Math.hypot(...theirs!.map((value, i) => value - ours![i]!));
      if (dtype === 'F32') {
        // Both round factors and sums; PEFT also finds singular vectors in float32, of whole deltas.
        expect(distance / delta, name).toBeLessThan(run.of === 'svd' ? 1e-5 : 1e-6);
        continue;
      }
      const places = ordinalsOf(golden.bytes, dtype);
      const apart = ordinalsOf(tensor.bytes, dtype).map((place, i) => Math.abs(place - places[i]!));
      // PEFT rounds the factors of `cat`, and the delta, to the dtype of the layer.
      if (run.of === 'cat') expect(distance / delta, name).toBeLessThan(0.005);
      else {
        expect(Math.max(...apart), name).toBeLessThanOrEqual(1);
        totals.count += apart.length;
        totals.differing += apart.filter((steps) => steps > 0).length;
      }
    }
    expect([...merged.keys()]).toEqual(expect.arrayContaining([...expected.keys()]));
    if (['linear', 'ties', 'magnitude_prune'].includes(run.of))
      await compareFactors(run, plan, roots);
  });

  afterAll(() => {
    expect(totals.count).toBeGreaterThan(40_000);
    expect(totals.differing / totals.count).toBeLessThan(2e-4);
  });
});

/** Factors that are combined element by element are PEFT's, bit for bit. */
async function compareFactors(
  run: Run,
  plan: Plan,
  roots: Readonly<Record<string, string>>,
): Promise<void> {
  const expected = await loadTensors(join(FOLDER, run.model, run.name), ['factors.safetensors']);
  const files = new Map<string, Buffer>();
  for (const [id, root] of Object.entries(roots)) {
    if (id !== 'base') files.set(id, await readFile(join(root, 'adapter_model.safetensors')));
  }
  let compared = 0;
  for (const { name, deltas = [], combined } of plan.shards.flatMap(({ tensors }) => tensors)) {
    if (combined === undefined) continue;
    const { a, b } = combineFactors(deltas, combined, ({ input, offset, byteLength }) =>
      Uint8Array.from(files.get(input)!.subarray(offset, offset + byteLength)),
    );
    const golden = (side: string) =>
      expected.get(`${name.replace(/\.weight$/, '')}.${side}`)?.bytes ?? new Uint8Array();
    for (const [factor, bytes] of [
      [a, golden('A')],
      [b, golden('B')],
    ] as const) {
      const values = Float32Array.from(decodeTensor(bytes, 'F32'));
      // -0 and 0 are one number.
      expect(
        factor.findIndex((value, i) => value !== values[i]),
        name,
      ).toBe(-1);
      expect(factor.length).toBe(values.length);
      compared++;
    }
  }
  expect(compared).toBe(expected.size);
}
