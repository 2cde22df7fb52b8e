import type { ModelConfig } from '../architectures/model-config.ts';
import type { ModelFiles } from '../model-files.ts';
import type { Checkpoint } from '../safetensors/checkpoint.ts';
import { bindAwq } from './awq.ts';
import { bindBitsandbytes, type DequantizedCheckpoint } from './bitsandbytes.ts';
import { bindFp8 } from './fp8.ts';
import { bindGptq } from './gptq.ts';
import { bindMxfp4 } from './mxfp4.ts';
import { QuantizedParts } from './quantized-parts.ts';

/** What tools call themselves, by `quant_method`. */
const SAVERS = { gptq: 'GPTQ', awq: 'AutoAWQ', fp8: 'its publisher', mxfp4: 'its publisher' };

/**
 * Binds the packed weights of a quantised checkpoint to their companions, from headers and little
 * more. A base that is not quantised is returned as it is.
 *
 * @throws WeldlineError `checkpoint.bad-quantization` naming the tensor that is missing, has another
 *   size, or says what is not known; `checkpoint.quantized-base` for what is not dequantised
 */
export async function bindQuantizedWeights(
  files: ModelFiles,
  checkpoint: Checkpoint,
  config: ModelConfig,
): Promise<DequantizedCheckpoint> {
  const { quantization, modelType, dtype } = config;
  if (quantization === undefined) return { checkpoint, quantized: new Map() };
  const { method, settings } = quantization;
  if (method === 'bitsandbytes') return bindBitsandbytes(files, checkpoint, config);
  const parts = new QuantizedParts(files.name, checkpoint, modelType, SAVERS[method]);
  switch (method) {
    case 'gptq':
      return bindGptq(files, parts, settings);
    case 'awq':
      return bindAwq(files.name, parts, settings);
    case 'fp8':
      return bindFp8(files.name, parts, settings, dtype);
    case 'mxfp4':
      return bindMxfp4(parts, dtype);
  }
}
