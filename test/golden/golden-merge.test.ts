import { readdirSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { decodeTensor, type FloatDtypeName, ordinalsOf } from '../doubles/decode-tensor.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import {
  type ExactMerge,
  type GoldenCase,
  type LoadedTensor,
  loadTensors,
  mergeExactly,
} from './golden-case.ts';

const CASES = fileURLToPath(new URL('./cases', import.meta.url));
const EMBEDDING = 'model.embed_tokens.weight';

/**
 * torch multiplies and adds with one rounding (FMA), the kernel with two, so that sums next to a
 * rounding boundary fall on different sides. These adapters are strong beside their weights, which
 * makes that likelier than in a trained one. float16 has 8 times as many boundaries as bfloat16.
 */
const DIFFERING_PER_MILLION_MAX = { BF16: 10, F16: 80 } as const;

/** The mean error is that of the last rounding, up to those boundary cases; in float32 only FMA. */
const MEAN_ERROR_RATIO_MAX = { BF16: 1 + 1e-7, F16: 1 + 1e-7, F32: 1.05 } as const;

/** Elements compared, and those that differ from PEFT's, over all cases. */
const totals = { BF16: { count: 0, differing: 0 }, F16: { count: 0, differing: 0 } };

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
    if (golden.targets[name] !== undefined) continue;
    expect(Buffer.compare(tensor.bytes, bytes), name).toBe(0);
    if (golden.replaced.includes(name)) continue;
    expect(Buffer.compare(tensor.bytes, required(base, name).bytes), name).toBe(0);
  }
}

/** Compares a merged tensor with PEFT's. @returns the sums of absolute errors of both */
function compareMerged(
  ours: LoadedTensor,
  peft: LoadedTensor,
  exact: ExactMerge,
): { ours: number; peft: number } {
  const dtype = ours.dtype as FloatDtypeName;
  const values = decodeTensor(ours.bytes, dtype);
  const peftValues = decodeTensor(peft.bytes, dtype);
  const places = ordinalsOf(ours.bytes, dtype);
  const peftPlaces = ordinalsOf(peft.bytes, dtype);
  const errors = { ours: 0, peft: 0 };
  const wrong: number[] = [];
  if (dtype !== 'F32') totals[dtype].count += values.length;
  for (const [index, value] of values.entries()) {
    const peftValue = peftValues[index] ?? Number.NaN;
    const exactValue = exact.values[index] ?? Number.NaN;
    const bound = exact.bounds[index] ?? 0;
    errors.ours += Math.abs(value - exactValue);
    errors.peft += Math.abs(peftValue - exactValue);
    if (dtype === 'F32') {
      if (Math.abs(value - exactValue) > bound) wrong.push(index);
    } else if (value !== peftValue) {
      totals[dtype].differing++;
      // One rounding apart, and only where float32 arithmetic cannot tell the sides apart.
      const steps = Math.abs((places[index] ?? 0) - (peftPlaces[index] ?? 0));
      const boundary = (value + peftValue) / 2;
      if (steps !== 1 || Math.abs(exactValue - boundary) > bound) wrong.push(index);
    }
  }
  expect(wrong, ours.name).toEqual([]);
  return errors;
}

function compareTargets({ golden, ours, base, adapter, expected }: Merged): void {
  const errors = { ours: 0, peft: 0 };
  for (const [name, target] of Object.entries(golden.targets)) {
    const weight = base.get(name) ?? required(base, EMBEDDING);
    const stem = `base_model.model.${name.replace(/\.weight$/, '')}`;
    const a = required(adapter, `${stem}.lora_A.weight`);
    const b = required(adapter, `${stem}.lora_B.weight`);
    const exact = mergeExactly(weight, a, b, target);
    const one = compareMerged(required(ours, name), required(expected, name), exact);
    errors.ours += one.ours;
    errors.peft += one.peft;
  }
  const [first = ''] = Object.keys(golden.targets);
  const dtype = required(ours, first).dtype as FloatDtypeName;
  expect(errors.ours / errors.peft).toBeLessThanOrEqual(MEAN_ERROR_RATIO_MAX[dtype]);
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
    compareTargets(merged);

    const scalings = plan.shards.flatMap((shard) =>
      shard.tensors.flatMap(({ name: tensor, delta }) =>
        delta === undefined ? [] : [[tensor, delta] as const],
      ),
    );
    const planned = Object.fromEntries(
      scalings.map(([tensor, { rank, scaling, transposed }]) => [
        tensor,
        { rank, scaling, transposed },
      ]),
    );
    expect(planned).toEqual(golden.targets);

    // The base's files, and the manifest.
    const names = await readdir(output);
    expect(names.sort()).toEqual([...(await readdir(base)), 'weldline.json'].sort());
    const { base: before, expected: after } = golden.tie_word_embeddings;
    const config = (await readText(base, 'config.json')).replace(
      `"tie_word_embeddings": ${before}`,
      `"tie_word_embeddings": ${after}`,
    );
    expect(await readText(output, 'config.json')).toBe(config);
    expect(JSON.parse(config)['tie_word_embeddings'] ?? before).toBe(after);
    const generation = 'generation_config.json';
    expect(await readText(output, generation)).toBe(await readText(base, generation));
  });

  afterAll(() => {
    for (const dtype of ['BF16', 'F16'] as const) {
      const { count, differing } = totals[dtype];
      expect(count).toBeGreaterThan(400_000);
      expect((differing / count) * 1e6).toBeLessThanOrEqual(DIFFERING_PER_MILLION_MAX[dtype]);
    }
  });
});
