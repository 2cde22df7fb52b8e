/** Quantised bases, and 16-bit ones taken as NF4, against what the references make of them. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import type { MergeOptions } from '../../engine/plan/plan.ts';
import { verifyMerge } from '../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { mergeDirectories, readFiles, writeFiles } from '../doubles/merge-directories.ts';
import { Random } from '../doubles/random.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { adapterFiles, randomTensor } from '../doubles/tiny-model.ts';
import { type TestTensor, writeSafetensors } from '../doubles/write-safetensors.ts';
import { type LoadedTensor, loadTensors } from './golden-case.ts';

const CASES = fileURLToPath(new URL('./bases', import.meta.url));
const PAGE_BYTES = 4096;
const WEIGHTS = 'model.safetensors';
const PART = /(\.(qweight|qzeros|scales|g_idx|activation_scale)|_scale_inv|_blocks|_scales)$/;

const names = (await readdir(CASES)).sort();

function optionsOf(name: string): MergeOptions {
  return { mergeOnto: name.startsWith('simulated') ? 'simulated_nf4' : 'dequantized' };
}

async function loadGolden(name: string) {
  const folder = join(CASES, name);
  const base = await loadTensors(join(folder, 'base'), [WEIGHTS]);
  const dequantized = await loadTensors(folder, ['dequantized.safetensors']);
  const plain = [...base.values()].filter(
    (tensor) => !PART.test(tensor.name) && !dequantized.has(tensor.name),
  );
  return { base: join(folder, 'base'), dequantized, plain };
}

type Golden = Awaited<ReturnType<typeof loadGolden>>;

/** An adapter on the first matrix that is no expert, so that the others show what they are. */
async function writeAdapter(golden: Golden, directory: string): Promise<string> {
  const all = [...golden.dequantized.values(), ...golden.plain];
  const isTargeted = ({ name, shape }: LoadedTensor) =>
    shape.length === 2 && /\.(c_attn|q_proj)\.weight$/.test(name);
  const { name, shape } = all.find(isTargeted)!;
  // Stored [in, out] in a Conv1D.
  const [out, inputs] = name.includes('c_attn') ? [...shape].reverse() : shape;
  const stem = `base_model.model.${name.replace(/\.weight$/, '')}`;
  const random = new Random(5);
  const tensors = [
    randomTensor(random, `${stem}.lora_A.weight`, 'F32', [4, inputs!]),
    randomTensor(random, `${stem}.lora_B.weight`, 'F32', [out!, 4]),
  ];
  const target = name.split('.').at(-2);
  const config = { peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: [target] };
  await writeFiles(directory, adapterFiles({ config, tensors, files: {}, shards: 1 }));
  return name;
}

function sameBytes(ours: LoadedTensor | undefined, expected: LoadedTensor): void {
  const { name, dtype, shape } = expected;
  expect({ name, dtype: ours?.dtype, shape: ours?.shape }).toEqual({ name, dtype, shape });
  expect(Buffer.compare(ours!.bytes, expected.bytes), name).toBe(0);
}

/** The base as it would be had it never been quantised. */
async function writeDequantized({ base, dequantized, plain }: Golden, folder: string) {
  await mkdir(folder, { recursive: true });
  const tensors: TestTensor[] = [...plain, ...dequantized.values()].map(({ bytes, ...tensor }) => ({
    ...tensor,
    data: bytes,
  }));
  await writeFile(join(folder, WEIGHTS), writeSafetensors(tensors));
  const config = JSON.parse(await readFile(join(base, 'config.json'), 'utf8'));
  delete config.quantization_config;
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
}

describe.each(names)('%s', (name) => {
  test('bit for bit what the reference makes', async () => {
    const golden = await loadGolden(name);
    const root = await temporaryDirectory();
    const adapter = join(root, 'adapter');
    const target = await writeAdapter(golden, adapter);
    const output = join(root, 'merged');
    const { plan } = await mergeDirectories({
      ...{ base: golden.base, adapter, output, options: optionsOf(name), threads: 2 },
    });
    const ours = await loadTensors(output, [WEIGHTS]);
    const expected = [...golden.plain, ...golden.dequantized.values()];
    expect([...ours.keys()].sort()).toEqual(expected.map((each) => each.name).sort());
    for (const each of expected) if (each.name !== target) sameBytes(ours.get(each.name), each);
    expect(golden.dequantized.size).toBeGreaterThan(1);
    const config = JSON.parse(await readFile(join(output, 'config.json'), 'utf8'));
    expect(config).not.toHaveProperty('quantization_config');

    const roots = { base: golden.base, a: adapter };
    const files = await openModelDirectory(output);
    const verified = await verifyMerge({ directory: output, files, recompute: { plan, roots } });
    expect(verified.rowsRecomputed).toBeGreaterThanOrEqual(3 * golden.dequantized.size - 2);
    expect(verified.worstRounding).toBeLessThanOrEqual(1.01);
  });

  test.each([undefined, 'float32'] as const)(
    'the bytes of a merge onto the dequantised checkpoint, in dtype %s',
    async (dtype) => {
      const golden = await loadGolden(name);
      const root = await temporaryDirectory();
      const adapter = join(root, 'adapter');
      await writeAdapter(golden, adapter);
      await writeDequantized(golden, join(root, 'base'));
      const asked: MergeOptions = dtype === undefined ? {} : { dtype };
      const expected = join(root, 'expected');
      const base = join(root, 'base');
      await mergeDirectories({ base, adapter, output: expected, options: asked });
      const output = join(root, 'output');
      const options = { ...asked, ...optionsOf(name) };
      await mergeDirectories({ base: golden.base, adapter, output, options });
      const wanted = await loadTensors(expected, [WEIGHTS]);
      const found = await loadTensors(output, [WEIGHTS]);
      expect(found.size).toBe(wanted.size);
      for (const [tensor, ours] of found) sameBytes(ours, wanted.get(tensor)!);
    },
  );

  test('the same bytes whatever the windows are', async () => {
    const golden = await loadGolden(name);
    const root = await temporaryDirectory();
    const adapter = join(root, 'adapter');
    await writeAdapter(golden, adapter);
    const inputs = { base: golden.base, adapter, options: optionsOf(name) };
    await mergeDirectories({ ...inputs, output: join(root, 'whole') });
    const windowBytes = PAGE_BYTES;
    await mergeDirectories({ ...inputs, output: join(root, 'pieces'), windowBytes });
    expect(await readFiles(join(root, 'pieces'))).toEqual(await readFiles(join(root, 'whole')));
  });
});
