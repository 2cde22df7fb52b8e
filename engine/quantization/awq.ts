import { z } from 'zod';
import type { MergeDtype } from '../safetensors/dtype.ts';
import type { DequantizedCheckpoint } from './bitsandbytes.ts';
import { type QuantizedParts, referTo } from './quantized-parts.ts';
import { parseSettings } from './settings.ts';

const schema = z.looseObject({
  bits: z.int(),
  group_size: z.int(),
  zero_point: z.boolean().nullish(),
  version: z.string().nullish(),
  format: z.string().nullish(),
});

/** Beside the weights, `scales` of activations are: with them the model is another one. */
const PART = /\.(qweight|qzeros|scales|g_idx)$/;

const WORD_VALUES = 8;

/**
 * Binds the packed weights of an AWQ checkpoint in the GEMM layout.
 * Source: AutoAWQ's `WQLinear_GEMM`, `dequantize_gemm`.
 *
 * @throws WeldlineError `checkpoint.bad-quantization`, `checkpoint.quantized-base`
 */
export function bindAwq(
  where: string,
  parts: QuantizedParts,
  settings: unknown,
): DequantizedCheckpoint {
  const { bits, group_size, zero_point, ...others } = parseSettings(where, schema, settings);
  const version = (others.version ?? others.format ?? 'gemm').toLowerCase();
  if (version !== 'gemm') {
    throw parts.refuse(`its weights are AWQ in the layout ${JSON.stringify(version.slice(0, 50))}`);
  }
  if (bits !== 4) throw parts.refuse(`its weights are AWQ with ${bits} bits`);
  if (zero_point === false) throw parts.refuse('its weights are AWQ without zero points');
  for (const weight of parts.checkpoint.tensors.values()) {
    if (!weight.name.endsWith('.qweight')) continue;
    const stem = weight.name.replace(/\.qweight$/, '');
    parts.check(weight, ['I32']);
    const [inputs, words] = weight.shape;
    if (!inputs || !words || weight.shape.length !== 2) {
      throw parts.bad(weight.name, `has shape [${weight.shape.join(', ')}] and is no matrix`);
    }
    const outputs = words * WORD_VALUES;
    const groupSize = group_size === -1 ? inputs : group_size;
    if (groupSize <= 0 || inputs % groupSize !== 0) {
      throw parts.bad(weight.name, `has ${inputs} inputs in groups of ${group_size}`);
    }
    const count = inputs / groupSize;
    const scales = parts.take(`${stem}.scales`, ['F16', 'BF16', 'F32'], [count, outputs]);
    const zeros = parts.take(`${stem}.qzeros`, ['I32'], [count, words]);
    const dtype = scales.dtype as MergeDtype;
    parts.add(
      weight,
      { name: `${stem}.weight`, dtype, shape: [outputs, inputs] },
      {
        ...{ scheme: 'awq', dtype, bits: 4, groupSize, zeroOffset: 0 },
        ...{ zeros: referTo(zeros), scales: referTo(scales) },
      },
    );
  }
  return parts.finish(({ name }) => PART.test(name));
}
