import { z } from 'zod';
import type { MergeDtype } from '../safetensors/dtype.ts';
import type { DequantizedCheckpoint } from './bitsandbytes.ts';
import { type QuantizedParts, referTo } from './quantized-parts.ts';
import { parseSettings } from './settings.ts';

const schema = z.looseObject({
  weight_block_size: z.tuple([z.int().positive(), z.int().positive()]).nullish(),
});

const SCALES = /^(.+)_scale_inv$/;

/** Scales of activations: only who computes in FP8 needs them. */
const ACTIVATION_SCALES = ['activation_scale', 'input_scale'];

const PART =
  /(_scale_inv|\.(activation_scale|input_scale|weight_scale|[kv]_scale|scale|qscale_\w+))$/;

/**
 * Binds FP8 weights to their scales: one for each block of rows and columns, or one for all where
 * `weight_block_size` is null. Blocks at the ends may be smaller.
 *
 * Source: transformers' `Fp8Dequantize`; DeepSeek-V3's `weight_dequant` for blocks that are not full.
 *
 * @param dtype of the model, which weights are dequantised to
 * @throws WeldlineError `checkpoint.bad-quantization`
 */
export function bindFp8(
  where: string,
  parts: QuantizedParts,
  settings: unknown,
  dtype: MergeDtype | undefined,
): DequantizedCheckpoint {
  const config = parseSettings(where, schema, settings);
  // transformers' default; null says that there are no blocks.
  const blocks = config.weight_block_size === undefined ? [128, 128] : config.weight_block_size;
  for (const { name: scalesName } of parts.checkpoint.tensors.values()) {
    const name = SCALES.exec(scalesName)?.[1];
    if (name === undefined) continue;
    const weight = parts.checkpoint.tensors.get(name);
    if (weight === undefined) throw parts.bad(scalesName, `has no weight "${name}" beside it`);
    parts.check(weight, ['F8_E4M3']);
    const { shape } = weight;
    const [rows, columns] = shape.slice(-2);
    if (!rows || !columns || shape.length > 3) {
      throw parts.bad(name, `has shape [${shape.join(', ')}] and is no matrix or matrices`);
    }
    if (dtype === undefined) {
      throw parts.bad(name, 'is FP8, and config.json has no "dtype" that tells what it was');
    }
    const [blockRows = rows, blockColumns = columns] = blocks ?? [];
    const grid = [Math.ceil(rows / blockRows), Math.ceil(columns / blockColumns)];
    const found = parts.checkpoint.tensors.get(scalesName)?.shape ?? [];
    const isScalar = blocks === null && found.every((extent) => extent === 1);
    const wanted = isScalar && shape.length === 2 ? found : [...shape.slice(0, -2), ...grid];
    const scales = parts.take(scalesName, ['F32', 'BF16', 'F16'], wanted);
    for (const each of ACTIVATION_SCALES) {
      const beside = name.replace(/[^.]+$/, each);
      if (parts.checkpoint.tensors.has(beside)) parts.drop(beside);
    }
    parts.add(
      weight,
      { name, dtype, shape },
      { scheme: 'fp8', dtype, blockRows, blockColumns, scales: referTo(scales) },
    );
  }
  return parts.finish(({ name, dtype: stored }) => PART.test(name) || stored.startsWith('F8'));
}
