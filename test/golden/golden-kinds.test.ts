import { existsSync, readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { verifyMerge } from '../../engine/verify/verify-merge.ts';
import { openModelDirectory } from '../../sources/model-directory.ts';
import { decodeTensor, type FloatDtypeName, halfGapAt } from '../doubles/decode-tensor.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';
import { type LoadedTensor, loadTensors } from './golden-case.ts';

const KINDS = fileURLToPath(new URL('./kinds', import.meta.url));

/** What case.json says. */
interface KindCase {
  readonly base: string;
}

/**
 * Elements of 16-bit weights that differ from PEFT's; none in the other cases. PEFT rounds after each of
 * two adapters, and the factors of an AdaLoRA whose rank was cut to the dtype of the base.
 */
const DIFFERING_ELEMENTS: Readonly<Record<string, number>> = {
  'adalora-bf16': 17,
  'dora_then_lora-bf16': 816,
  'dora_twice-bf16': 820,
  'dora_twice_conv1d-bf16': 783,
  'lora_then_dora-bf16': 837,
};

/**
 * How far a value may be from the exact one, in roundings of its dtype: once from float32 to 16 bits;
 * in float32 each delta is rounded too, which counts where it cancels with the weight.
 */
const ROUNDINGS_MAX = { BF16: 1.01, F32: 4 } as const;

function decode({ bytes, dtype }: LoadedTensor): Float64Array {
  return decodeTensor(bytes, dtype as FloatDtypeName);
}

interface Tally {
  differing: number;
  oursError: number;
  peftError: number;
}

function compare(
  ours: LoadedTensor,
  peft: LoadedTensor,
  residual: LoadedTensor,
  tally: Tally,
): void {
  const dtype = ours.dtype as keyof typeof ROUNDINGS_MAX;
  const [values, peftValues, residuals] = [decode(ours), decode(peft), decode(residual)];
  let worst = 0;
  for (const [index, value] of values.entries()) {
    const peftValue = peftValues[index] ?? Number.NaN;
    const exact = peftValue + (residuals[index] ?? Number.NaN);
    // Of float32: against the largest of what was added up, as far as it shows.
    const gap =
      dtype === 'F32' ? Math.max(halfGapAt(exact, dtype), 2 ** -28) : halfGapAt(exact, dtype);
    worst = Math.max(worst, Math.abs(value - exact) / gap);
    if (value !== peftValue) tally.differing++;
    tally.oursError += Math.abs(value - exact);
    tally.peftError += Math.abs(peftValue - exact);
  }
  expect(worst, ours.name).toBeLessThanOrEqual(ROUNDINGS_MAX[dtype]);
}

describe('adapters beside plain LoRA, merged as PEFT merges them', () => {
  test.each(readdirSync(KINDS).filter((name) => name !== 'bases'))('%s', async (name) => {
    const folder = join(KINDS, name);
    const golden = JSON.parse(await readFile(join(folder, 'case.json'), 'utf8')) as KindCase;
    const [base, adapter] = [join(KINDS, 'bases', golden.base), join(folder, 'adapter')];
    const second = join(folder, 'second');
    const isTwo = existsSync(second);
    const others = isTwo ? { b: second } : {};
    const options = isTwo ? { combination: { method: 'sequential' } as const } : {};
    const output = join(await temporaryDirectory(), 'merged');
    const inputs = { base, adapter, others, options };
    const { plan } = await mergeDirectories({ ...inputs, output, threads: 2 });
    const files = await openModelDirectory(output);
    const roots = { base, a: adapter, ...others };
    await verifyMerge({ directory: output, files, recompute: { plan, roots } });

    const ours = await loadTensors(output, ['model.safetensors']);
    const before = await loadTensors(base, ['model.safetensors']);
    const expected = await loadTensors(folder, ['merged.safetensors']);
    expect([...ours.keys()].sort()).toEqual([...before.keys()].sort());
    const tally = { differing: 0, oursError: 0, peftError: 0 };
    for (const [tensor, merged] of ours) {
      const peft = expected.get(tensor);
      const untouched = before.get(tensor);
      expect({ dtype: merged.dtype, shape: merged.shape }).toEqual({
        dtype: untouched?.dtype,
        shape: untouched?.shape,
      });
      const residual = expected.get(`residual.${tensor}`);
      if (peft === undefined || residual === undefined) {
        expect(Buffer.compare(merged.bytes, untouched?.bytes ?? merged.bytes), tensor).toBe(0);
      } else compare(merged, peft, residual, tally);
    }
    expect(tally.oursError).toBeLessThanOrEqual(tally.peftError);
    if (golden.base.endsWith('bf16')) expect(tally.differing).toBe(DIFFERING_ELEMENTS[name] ?? 0);
  });
});
