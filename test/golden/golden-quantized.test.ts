/** Quantised bases, against what bitsandbytes dequantises them to and PEFT merges onto that. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import type { MergeOptions } from '../../engine/plan/plan.ts';
import { verifyMerge } from '../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { mergeDirectories, readFiles } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { writeSafetensors } from '../doubles/write-safetensors.ts';
import { type LoadedTensor, loadTensors } from './golden-case.ts';

const CASES = fileURLToPath(new URL('./quantized', import.meta.url));
const PAGE_BYTES = 4096;
const WEIGHTS = 'model.safetensors';

interface Golden {
  readonly folder: string;
  readonly base: ReadonlyMap<string, LoadedTensor>;
  readonly dequantized: ReadonlyMap<string, LoadedTensor>;
  readonly merged: ReadonlyMap<string, LoadedTensor>;
}

async function loadGolden(name: string): Promise<Golden> {
  const folder = join(CASES, name);
  return {
    folder,
    base: await loadTensors(join(folder, 'base'), [WEIGHTS]),
    dequantized: await loadTensors(folder, ['dequantized.safetensors']),
    merged: await loadTensors(folder, ['merged.safetensors']),
  };
}

/** Names of the tensors that the base has without quantisation. */
function plainNames({ base, dequantized }: Golden): string[] {
  const companion = /\.(absmax|\w*quant_map|nested_absmax|quant_state\..*|SCB|weight_format)$/;
  return [...base.keys()].filter((name) => !companion.test(name) && !dequantized.has(name));
}

async function mergeGolden(folder: string, output: string, windowBytes?: number) {
  const directories = { base: join(folder, 'base'), adapter: join(folder, 'adapter'), output };
  const options = { mergeOnto: 'dequantized' } as const;
  const cut = windowBytes === undefined ? {} : { windowBytes };
  return mergeDirectories({ ...directories, ...cut, options, threads: 2 });
}

/** The base as it would be had it never been quantised, beside the same adapter. */
async function writeDequantized(golden: Golden, folder: string): Promise<void> {
  const base = join(folder, 'base');
  await mkdir(base, { recursive: true });
  const kept = plainNames(golden).map((name) => golden.base.get(name)!);
  const tensors = [...kept, ...golden.dequantized.values()];
  const data = tensors.map(({ bytes, ...tensor }) => ({ ...tensor, data: bytes }));
  await writeFile(join(base, WEIGHTS), writeSafetensors(data));
  const config = await readFile(join(golden.folder, 'base', 'config.json'), 'utf8');
  const { quantization_config: _, ...rest } = JSON.parse(config) as Record<string, unknown>;
  await writeFile(join(base, 'config.json'), JSON.stringify(rest));
}

function sameBytes(ours: LoadedTensor, expected: LoadedTensor): void {
  const { name, dtype, shape } = expected;
  expect({ name, dtype: ours.dtype, shape: ours.shape }).toEqual({ name, dtype, shape });
  expect(Buffer.compare(ours.bytes, expected.bytes), name).toBe(0);
}

describe.each((await readdir(CASES)).sort())('%s', (name) => {
  test('bit for bit what bitsandbytes and PEFT make', async () => {
    const golden = await loadGolden(name);
    const output = join(await temporaryDirectory(), 'merged');
    const { plan, manifest } = await mergeGolden(golden.folder, output);
    const ours = await loadTensors(output, [WEIGHTS]);
    const plain = plainNames(golden);
    expect([...ours.keys()].sort()).toEqual([...plain, ...golden.dequantized.keys()].sort());
    for (const each of plain) {
      if (!golden.merged.has(each)) sameBytes(ours.get(each)!, golden.base.get(each)!);
    }
    for (const [each, expected] of golden.merged) {
      // Of float32 results PEFT's are not always the nearest; the next test has them.
      if (expected.dtype !== 'F32') sameBytes(ours.get(each)!, expected);
    }
    for (const [each, expected] of golden.dequantized) {
      // LLM.int8 dequantises to float32, and is rounded here.
      if (golden.merged.has(each) || name.startsWith('int8')) continue;
      sameBytes(ours.get(each)!, expected);
    }
    expect(golden.merged.size).toBeGreaterThan(0);

    const config = await readFile(join(output, 'config.json'), 'utf8');
    const { quantization_config: _, ...rest } = JSON.parse(
      await readFile(join(golden.folder, 'base', 'config.json'), 'utf8'),
    ) as Record<string, unknown>;
    expect(JSON.parse(config)).toEqual(rest);
    expect(manifest.options).toEqual({ merge_onto: 'dequantized' });

    const roots = { base: join(golden.folder, 'base'), a: join(golden.folder, 'adapter') };
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
      await writeDequantized(golden, root);
      const adapter = join(golden.folder, 'adapter');
      // LLM.int8's rounding is the last step: the checkpoint it is compared with is float32.
      const own = name.endsWith('fp16') ? ('float16' as const) : ('bfloat16' as const);
      const asked = dtype ?? (name.startsWith('int8') ? own : undefined);
      const options: MergeOptions = asked === undefined ? {} : { dtype: asked };
      const expected = join(root, 'expected');
      await mergeDirectories({ base: join(root, 'base'), adapter, output: expected, options });
      const output = join(root, 'output');
      await mergeDirectories({
        base: join(golden.folder, 'base'),
        adapter,
        output,
        options: { ...options, mergeOnto: 'dequantized' },
      });
      const wanted = await loadTensors(expected, [WEIGHTS]);
      const found = await loadTensors(output, [WEIGHTS]);
      expect(found.size).toBe(wanted.size);
      for (const [tensor, ours] of found) sameBytes(ours, wanted.get(tensor)!);
    },
  );

  test('the same bytes whatever the windows are', async () => {
    const folder = join(CASES, name);
    const root = await temporaryDirectory();
    await mergeGolden(folder, join(root, 'whole'));
    await mergeGolden(folder, join(root, 'pieces'), PAGE_BYTES);
    expect(await readFiles(join(root, 'pieces'))).toEqual(await readFiles(join(root, 'whole')));
  });
});
