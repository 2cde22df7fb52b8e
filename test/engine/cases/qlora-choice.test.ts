/** A QLoRA adapter merged onto the original weights, and onto those of its training. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { decodeTensor } from '../../doubles/decode-tensor.ts';
import { mergeDirectories, writeFiles } from '../../doubles/merge-directories.ts';
import { dequantizeSlowly, quantizeNearest } from '../../doubles/quantized-weight.ts';
import { temporaryDirectory } from '../../doubles/temporary-directory.ts';
import { adapterFiles, baseFiles, tinyAdapter, tinyBase } from '../../doubles/tiny-model.ts';
import { type LoadedTensor, loadTensors } from '../../golden/golden-case.ts';

const WEIGHTS = 'model.safetensors';
const NF4 = { scheme: 'nf4', blockSize: 64, dtype: 'float32' } as const;

const valuesOf = ({ bytes }: Pick<LoadedTensor, 'bytes'>): Float64Array =>
  decodeTensor(bytes, 'F32');

/** What NF4 makes of a weight, worked out apart from the engine. */
function throughNf4(values: Float64Array, shape: readonly number[]): number[] {
  const { codes, maxima } = quantizeNearest([...values], NF4);
  const packed = Uint8Array.from({ length: codes.length / 2 }, (_, i) => {
    return 16 * codes[2 * i]! + codes[2 * i + 1]!;
  });
  const absmax = new Uint8Array(Float32Array.from(maxima).buffer);
  const parts = [
    { name: 'w', dtype: 'U8', shape: [packed.length, 1], data: packed },
    { name: 'w.absmax', dtype: 'F32', shape: [maxima.length], data: absmax },
  ];
  return dequantizeSlowly(parts, { ...NF4, shape });
}

test('the two differ by what NF4 took from each weight, trained or not, and by nothing else', async () => {
  const root = await temporaryDirectory();
  const [base, adapter] = [join(root, 'base'), join(root, 'adapter')];
  await writeFiles(base, baseFiles(tinyBase({ dtype: 'F32' })));
  await writeFiles(adapter, adapterFiles(tinyAdapter()));
  const [original, simulated] = await Promise.all(
    (['original', 'simulated_nf4'] as const).map(async (mergeOnto) => {
      const output = join(root, mergeOnto);
      await mergeDirectories({ base, adapter, output, options: { mergeOnto } });
      return loadTensors(output, [WEIGHTS]);
    }),
  );
  let quantized = 0;
  for (const [name, weight] of await loadTensors(base, [WEIGHTS])) {
    const ours = valuesOf(original!.get(name)!);
    const theirs = valuesOf(simulated!.get(name)!);
    if (!name.includes('_proj')) {
      expect(theirs, name).toEqual(ours);
      continue;
    }
    const before = valuesOf(weight);
    const after = throughNf4(before, weight.shape);
    const wrong = ours.map((value, i) => value - theirs[i]! - (before[i]! - after[i]!));
    expect(Math.max(...wrong.map(Math.abs)), name).toBeLessThan(1e-6);
    expect(Math.max(...ours.map((value, i) => Math.abs(value - theirs[i]!)))).toBeGreaterThan(1e-3);
    quantized++;
  }
  expect(quantized).toBe(14);
});
