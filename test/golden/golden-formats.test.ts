import { existsSync } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { parseManifest } from '../../engine/manifest.ts';
import { verifyMerge } from '../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { decodeTensor, type FloatDtypeName, ordinalsOf } from '../doubles/decode-tensor.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { expectError } from '../engine/bad-input/expect-refusal.ts';
import { type LoadedTensor, loadTensors } from './golden-case.ts';

const FORMATS = fileURLToPath(new URL('./formats', import.meta.url));
const CASES = fileURLToPath(new URL('./cases', import.meta.url));
const PICKLES = join(FORMATS, 'pickles');

type Tensors = ReadonlyMap<string, LoadedTensor>;

/** Merges, verifies what was written by the other road, and loads it. */
async function merge(base: string, adapter: string) {
  const output = join(await temporaryDirectory(), 'merged');
  const { plan } = await mergeDirectories({ base, adapter, output, threads: 2 });
  const files = await openModelDirectory(output);
  await verifyMerge({
    directory: output,
    files,
    recompute: { plan, roots: { base, a: adapter } },
  });
  return { plan, output, merged: await loadTensors(output, ['model.safetensors']) };
}

function expectUnchanged(merged: Tensors, base: Tensors, changed: Tensors): void {
  expect([...merged.keys()].sort()).toEqual([...base.keys()].sort());
  for (const [name, { bytes }] of base) {
    if (changed.has(name)) continue;
    expect(Buffer.compare(merged.get(name)?.bytes ?? new Uint8Array(), bytes), name).toBe(0);
  }
}

/** PEFT's configuration for the tensors of pickles/, which has no layer but the first. */
const CONFIG = JSON.stringify({
  peft_type: 'LORA',
  r: 4,
  lora_alpha: 8,
  target_modules: ['q_proj', 'v_proj'],
  layers_to_transform: [0],
});

async function adapterOf(weights: string, name: string): Promise<string> {
  const directory = join(await temporaryDirectory(), 'adapter');
  await mkdir(directory);
  await writeFile(join(directory, 'adapter_config.json'), CONFIG);
  await copyFile(join(PICKLES, weights), join(directory, name));
  return directory;
}

describe('adapter_model.bin as torch writes it', () => {
  test.each([
    ['plain.bin', 'expected.safetensors'],
    ['parameters.bin', 'expected.safetensors'],
    ['views.bin', 'views.safetensors'],
  ])('%s merges to what its tensors merge to as safetensors', async (pickle, safetensors) => {
    const base = join(CASES, 'plain-bf16', 'base');
    const ours = await merge(base, await adapterOf(pickle, 'adapter_model.bin'));
    const wanted = await merge(base, await adapterOf(safetensors, 'adapter_model.safetensors'));
    expect(ours.plan.rules).toEqual([{ adapter: 'a', rule: 'exact', format: 'peft-pickle' }]);
    expect(wanted.plan.rules).toEqual([{ adapter: 'a', rule: 'exact' }]);
    const read = (directory: string) => readFile(join(directory, 'model.safetensors'));
    expect(Buffer.compare(await read(ours.output), await read(wanted.output))).toBe(0);
  });

  test.each([
    ['command.bin', 'adapter.pickle-unsafe', '"posix.system"'],
    ['legacy.bin', 'adapter.pickle', 'before 1.6'],
    ['protocol-4.bin', 'adapter.pickle', 'bare pickle'],
    ['transposed.bin', 'adapter.pickle', 'not contiguous'],
    ['complex.bin', 'adapter.pickle', 'ComplexFloatStorage'],
    ['nested.bin', 'adapter.pickle', '"step" is no tensor'],
    ['sparse.bin', 'adapter.pickle', '_rebuild_sparse_tensor'],
    ['compressed.bin', 'adapter.pickle', 'compressed'],
    ['big-endian.bin', 'adapter.pickle', 'little-endian'],
  ] as const)('%s is refused, and nothing of it is run', async (pickle, code, why) => {
    const adapter = await adapterOf(join('refused', pickle), 'adapter_model.bin');
    const output = join(await temporaryDirectory(), 'merged');
    const base = join(CASES, 'plain-bf16', 'base');
    const error = await mergeDirectories({ base, adapter, output }).catch((reason) => reason);
    expectError(error, code, ['adapter_model.bin', why]);
    expect(existsSync(output)).toBe(false);
    const here = [...(await readdir('.')), ...(await readdir(adapter))];
    expect(here).not.toContain('weldline-was-attacked');
  });
});

describe('models that see', () => {
  test.each([
    ['llava', 'llava: model.language_model → language_model.model'],
    ['qwen2_vl', 'qwen2-vl: model.language_model → model'],
  ])('%s: names of the running model are bound to those on disk', async (model, rule) => {
    const base = join(FORMATS, model, 'base');
    const { plan, merged } = await merge(base, join(FORMATS, model, 'adapter'));
    expect(plan.rules).toEqual([{ adapter: 'a', rule }]);
    const expected = await loadTensors(join(FORMATS, model), ['expected.safetensors']);
    expectUnchanged(merged, await loadTensors(base, ['model.safetensors']), expected);
    let differing = 0;
    for (const [name, { bytes, dtype }] of expected) {
      const ours = ordinalsOf(merged.get(name)?.bytes as Uint8Array, dtype as FloatDtypeName);
      const peft = ordinalsOf(bytes, dtype as FloatDtypeName);
      for (const [index, place] of ours.entries()) {
        const distance = Math.abs(place - (peft[index] ?? Number.NaN));
        expect(distance, name).toBeLessThanOrEqual(1);
        differing += distance;
      }
    }
    // Sums of another order beside a rounding boundary: one in a million.
    expect(differing).toBeLessThanOrEqual(1);
  });
});

describe('adapters of MLX', () => {
  /** Of float32 sums of four products and, with DoRA, of norms, beside weights of 0.08. */
  const DISTANCE_MAX = 1e-7;

  test.each(['lora', 'dora'])('%s merges to what mlx-lm fuses', async (kind) => {
    const base = join(CASES, 'plain-fp32', 'base');
    const { plan, merged, output } = await merge(base, join(FORMATS, `mlx-${kind}`));
    expect(plan.rules).toEqual([{ adapter: 'a', rule: 'exact', format: 'mlx' }]);
    const manifest = await readFile(join(output, 'weldline.json'), 'utf8');
    expect(parseManifest(manifest, output).rules).toEqual(plan.rules);
    const expected = await loadTensors(join(FORMATS, `mlx-${kind}`), ['expected.safetensors']);
    const before = await loadTensors(base, ['model.safetensors']);
    expectUnchanged(merged, before, expected);
    for (const [name, { bytes }] of expected) {
      const ours = decodeTensor(merged.get(name)?.bytes as Uint8Array, 'F32');
      const theirs = decodeTensor(bytes, 'F32');
      const old = decodeTensor(before.get(name)?.bytes as Uint8Array, 'F32');
      const farthest = (from: Float64Array) =>
        Math.max(...ours.map((value, index) => Math.abs(value - (from[index] ?? Number.NaN))));
      expect(farthest(theirs), name).toBeLessThan(DISTANCE_MAX);
      expect(farthest(old), name).toBeGreaterThan(1e4 * DISTANCE_MAX);
    }
  });
});
