import type { MergeDtype } from '../safetensors/dtype.ts';
import type { DequantizedCheckpoint } from './bitsandbytes.ts';
import { MXFP4_BLOCK, MXFP4_BLOCK_BYTES } from './float-tables.ts';
import { type QuantizedParts, referTo } from './quantized-parts.ts';

const BLOCKS = /^(.+)_blocks$/;

/**
 * Binds the MXFP4 experts of gpt-oss: blocks [E, out, in / 32, 16] and scales [E, out, in / 32] are
 * the parameter [E, in, out] that transformers dequantises them to.
 *
 * Source: transformers' `convert_moe_packed_tensors`.
 *
 * @param dtype of the model, if its configuration says one
 * @throws WeldlineError `checkpoint.bad-quantization`
 */
export function bindMxfp4(
  parts: QuantizedParts,
  dtype: MergeDtype = 'BF16',
): DequantizedCheckpoint {
  for (const blocks of parts.checkpoint.tensors.values()) {
    const name = BLOCKS.exec(blocks.name)?.[1];
    if (name === undefined) continue;
    parts.check(blocks, ['U8']);
    const [experts, outputs, count, bytes] = blocks.shape;
    if (!experts || !outputs || !count || bytes !== MXFP4_BLOCK_BYTES || blocks.shape.length > 4) {
      const wanted = `[experts, out, in / ${MXFP4_BLOCK}, ${MXFP4_BLOCK_BYTES}]`;
      throw parts.bad(blocks.name, `has shape [${blocks.shape.join(', ')}] and not ${wanted}`);
    }
    const scales = parts.take(`${name}_scales`, ['U8'], [experts, outputs, count]);
    parts.add(
      blocks,
      { name, dtype, shape: [experts, count * MXFP4_BLOCK, outputs] },
      { scheme: 'mxfp4', dtype, scales: referTo(scales) },
    );
  }
  return parts.finish(
    ({ name, dtype: stored }) => /_(blocks|scales)$/.test(name) || stored === 'U8',
  );
}
