import { readdirSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { verifyMerge } from '../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { decodeTensor, type FloatDtypeName, ordinalsOf } from '../doubles/decode-tensor.ts';
import { isRoundingOf, type MergedElement } from '../doubles/float-merge.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import {
  factorsOfBias,
  type GoldenCase,
  type LoadedTensor,
  loadTensors,
  mergeExactly,
  mergeToNearestFloat32,
  scaleRows,
} from './golden-case.ts';

const CASES = fileURLToPath(new URL('./cases', import.meta.url));
const EMBEDDING = 'model.embed_tokens.weight';

/** Above it, a case's deltas are stronger beside their weights than a trained adapter's. */
const TRAINED_DELTA_RATIO_MAX = 0.05;

/** Elements that differ from PEFT's, per million of a 16-bit dtype. */
const DIFFERING_PER_MILLION_MAX = 5;

/**
 * How many elements of a case of 16-bit weights differ from PEFT's; none in the others. torch fuses
 * multiplications and additions, the kernel does not, so sums next to a rounding boundary may fall
 * on different sides of it.
 */
const DIFFERING_ELEMENTS: Readonly<Record<string, number>> = {
  'modules_to_save-fp16': 1,
  // PEFT rounds the norm of each row, and so scales 3 of 73,728 elements to the farther neighbour.
  'dora-fp16': 4,
};

/** Of large deltas more elements differ, and either side may be the nearer one. */
const LARGE_DELTA_MEAN_ERROR_RATIO_MAX = 1 + 1e-7;

/**
 * Elements of 16-bit weights compared, over all cases with deltas of a trained adapter's size that are
 * added and no more.
 */
const totals = {
  bfloat16: { count: 0, differing: 0 },
  float16: { count: 0, differing: 0 },
};

async function tensorsOf(directory: string): Promise<Map<string, LoadedTensor>> {
  const files = (await readdir(directory)).filter((name) => name.endsWith('.safetensors'));
  return loadTensors(directory, files);
}

async function readText(...path: string[]): Promise<string> {
  return readFile(join(...path), 'utf8');
}

function required(tensors: ReadonlyMap<string, LoadedTensor>, name: string): LoadedTensor {
  const tensor = tensors.get(name);
  if (tensor === undefined) throw new Error(`there is no tensor ${name}`);
  return tensor;
}

interface Merged {
  readonly golden: GoldenCase;
  readonly ours: ReadonlyMap<string, LoadedTensor>;
  readonly base: ReadonlyMap<string, LoadedTensor>;
  readonly adapter: ReadonlyMap<string, LoadedTensor>;
  readonly expected: ReadonlyMap<string, LoadedTensor>;
}

/** Compares names, dtypes, shapes, and all tensors that are not merged, bit for bit. */
function compareInventory({ golden, ours, base, expected }: Merged): void {
  expect([...ours.keys()].sort()).toEqual([...base.keys(), ...golden.added].sort());
  expect([...ours.keys()].sort()).toEqual([...expected.keys()].sort());
  for (const [name, tensor] of ours) {
    const { dtype, shape, bytes } = required(expected, name);
    expect({ name, dtype: tensor.dtype, shape: tensor.shape }).toEqual({ name, dtype, shape });
    if ((golden.targets[name] ?? golden.lora_biases?.[name]) !== undefined) continue;
    expect(Buffer.compare(tensor.bytes, bytes), name).toBe(0);
    if (golden.replaced.includes(name)) continue;
    expect(Buffer.compare(tensor.bytes, required(base, name).bytes), name).toBe(0);
  }
}

/** What a comparison with PEFT's merge adds up over tensors. */
interface Tally {
  count: number;
  /** Elements that differ from PEFT's, and how many of those by more than one rounding. */
  differing: number;
  apart: number;
  /** Sums of absolute errors. */
  oursError: number;
  peftError: number;
  /** Whether rows were scaled (DoRA), by norms that PEFT rounds. */
  isScaled: boolean;
}

/** Compares a merged tensor with PEFT's and adds to the tally. */
function compareMerged(
  ours: LoadedTensor,
  peft: LoadedTensor,
  exact: readonly MergedElement[],
  tally: Tally,
): void {
  const dtype = ours.dtype as FloatDtypeName;
  const values = decodeTensor(ours.bytes, dtype);
  const peftValues = decodeTensor(peft.bytes, dtype);
  const places = ordinalsOf(ours.bytes, dtype);
  const peftPlaces = ordinalsOf(peft.bytes, dtype);
  const wrong: number[] = [];
  for (const [index, element] of exact.entries()) {
    const value = values[index] ?? Number.NaN;
    const peftValue = peftValues[index] ?? Number.NaN;
    const isRight = isRoundingOf(value, element, dtype) && isRoundingOf(peftValue, element, dtype);
    if (!isRight) wrong.push(index);
    if (value !== peftValue) tally.differing++;
    if (Math.abs((places[index] ?? 0) - (peftPlaces[index] ?? 0)) > 1) tally.apart++;
    tally.oursError += Math.abs(value - element.value);
    tally.peftError += Math.abs(peftValue - element.value);
  }
  tally.count += exact.length;
  expect(wrong, ours.name).toEqual([]);
}

type Target = GoldenCase['targets'][string];

/** A merged tensor, and A and B of its delta. */
interface TargetFactors {
  readonly tensor: string;
  readonly target: Target;
  readonly factors: readonly [LoadedTensor, LoadedTensor];
}

function targetsOf({ golden, adapter }: Merged): TargetFactors[] {
  const weights = Object.entries(golden.targets).map(([tensor, target]): TargetFactors => {
    const stem = `base_model.model.${tensor.replace(/\.weight$/, '')}`;
    const [a, b] = adapter.has(`${stem}.lora_embedding_A`)
      ? [`${stem}.lora_embedding_A`, `${stem}.lora_embedding_B`]
      : [`${stem}.lora_A.weight`, `${stem}.lora_B.weight`];
    return { tensor, target, factors: [required(adapter, a), required(adapter, b)] };
  });
  const biases = Object.entries(golden.lora_biases ?? {}).map(([tensor, scaling]) => {
    const name = `base_model.model.${tensor.replace(/\.bias$/, '.lora_B.bias')}`;
    const target = { rank: 1, scaling, transposed: false };
    return { tensor, target, factors: factorsOfBias(required(adapter, name)) };
  });
  return [...weights, ...biases];
}

function compareTargets(name: string, merge: Merged): void {
  const { golden, ours, base, adapter, expected } = merge;
  const tally: Tally = {
    count: 0,
    differing: 0,
    apart: 0,
    oursError: 0,
    peftError: 0,
    isScaled: false,
  };
  for (const { tensor, target, factors } of targetsOf(merge)) {
    const own = `base_model.model.${tensor.replace(/weight$/, 'base_layer.weight')}`;
    const weight = adapter.get(own) ?? base.get(tensor) ?? required(base, EMBEDDING);
    const merged = required(ours, tensor);
    const sums = mergeExactly(weight, ...factors, target);
    const magnitude = adapter.get(own.replace('base_layer.weight', 'lora_magnitude_vector'));
    tally.isScaled ||= magnitude !== undefined;
    const exact = magnitude
      ? scaleRows(sums, decodeTensor(magnitude.bytes, magnitude.dtype as FloatDtypeName))
      : sums;
    compareMerged(merged, required(expected, tensor), exact, tally);
    if (golden.base_dtype === 'float32' && magnitude === undefined) {
      const nearest = mergeToNearestFloat32(weight, ...factors, target);
      expect(Buffer.compare(merged.bytes, nearest), tensor).toBe(0);
    }
  }
  checkTally(name, golden, tally);
}

function checkTally(name: string, { base_dtype, delta_ratio }: GoldenCase, tally: Tally): void {
  const { count, differing, apart, oursError, peftError } = tally;
  if (base_dtype === 'float32') {
    // All of ours are the nearest; some of PEFT's are not.
    expect(oursError).toBeLessThan(peftError);
  } else if (delta_ratio > TRAINED_DELTA_RATIO_MAX) {
    expect(differing).toBeGreaterThan(0);
    expect(oursError / peftError).toBeLessThanOrEqual(LARGE_DELTA_MEAN_ERROR_RATIO_MAX);
  } else {
    expect({ differing, apart }).toEqual({ differing: DIFFERING_ELEMENTS[name] ?? 0, apart: 0 });
    expect(oursError).toBeLessThanOrEqual(peftError);
    if (tally.isScaled) return;
    totals[base_dtype].count += count;
    totals[base_dtype].differing += differing;
  }
}

describe('merged as PEFT merges', () => {
  test.each(readdirSync(CASES).sort())('%s', async (name) => {
    const folder = join(CASES, name);
    const golden = JSON.parse(await readText(folder, 'case.json')) as GoldenCase;
    const base = join(folder, 'base');
    const adapter = join(folder, 'adapter');
    const output = join(await temporaryDirectory(), 'merged');
    const { plan } = await mergeDirectories({ base, adapter, output, threads: 2 });
    const merged = {
      golden,
      ours: await tensorsOf(output),
      base: await tensorsOf(base),
      adapter: await tensorsOf(adapter),
      expected: await loadTensors(folder, ['expected.safetensors']),
    };
    compareInventory(merged);
    const files = await openModelDirectory(output);
    const recompute = { plan, roots: { base, a: adapter } };
    await verifyMerge({ directory: output, files, recompute });
    compareTargets(name, merged);

    const planned = plan.shards.flatMap((shard) =>
      shard.tensors.flatMap(({ name: tensor, deltas = [] }) =>
        deltas.map(({ rank, scaling, transposed }) => ({ tensor, rank, scaling, transposed })),
      ),
    );
    const wanted = targetsOf(merged).map(({ tensor, target }) => ({ tensor, ...target }));
    const byName = (a: { tensor: string }, b: { tensor: string }) => (a.tensor < b.tensor ? -1 : 1);
    expect(planned.sort(byName)).toEqual(wanted.sort(byName));

    // The base's files, and the manifest.
    const names = await readdir(output);
    expect(names.sort()).toEqual([...(await readdir(base)), 'weldline.json'].sort());
    const { base: before, expected: after } = golden.tie_word_embeddings;
    const baseConfig = await readText(base, 'config.json');
    const { vocab_size: rows } = JSON.parse(baseConfig);
    const config = baseConfig
      .replace(`"tie_word_embeddings": ${before}`, `"tie_word_embeddings": ${after}`)
      .replace(`"vocab_size": ${rows}`, `"vocab_size": ${golden.vocabulary ?? rows}`);
    expect(await readText(output, 'config.json')).toBe(config);
    expect(JSON.parse(config)['tie_word_embeddings'] ?? before).toBe(after);
    const generation = 'generation_config.json';
    expect(await readText(output, generation)).toBe(await readText(base, generation));
  });

  afterAll(() => {
    for (const { count, differing } of Object.values(totals)) {
      expect(count).toBeGreaterThan(400_000);
      expect((differing / count) * 1e6).toBeLessThanOrEqual(DIFFERING_PER_MILLION_MAX);
    }
  });
});
