import { z } from 'zod';
import { WeldlineError } from '../errors.ts';
import { parseJson } from '../json-text.ts';
import { type ModelFiles, readTextFile } from '../model-files.ts';
import { DTYPE_BY_TORCH_NAME, type MergeDtype, type TorchDtype } from '../safetensors/dtype.ts';
import { problemsOf } from '../schema-problems.ts';

export const MODEL_CONFIG_FILE = 'config.json';

const quantizationSchema = z.looseObject({
  quant_method: z.string().optional(),
  load_in_4bit: z.boolean().nullish(),
  load_in_8bit: z.boolean().nullish(),
});

const schema = z.looseObject({
  model_type: z.string().optional(),
  tie_word_embeddings: z.boolean().nullish(),
  quantization_config: quantizationSchema.nullish(),
  dtype: z.unknown().optional(),
  torch_dtype: z.unknown().optional(),
  text_config: z.looseObject({ tie_word_embeddings: z.boolean().nullish() }).nullish(),
});

/** The parts of config.json that decide how a model is merged. */
export interface ModelConfig {
  /** The file as it stands: it is edited as text, so that number literals keep their form. */
  readonly text: string;
  readonly modelType: string | undefined;
  readonly tieWordEmbeddings: boolean | undefined;
  readonly hasTextConfig: boolean;
  /** Of the model as a whole, where it says so. */
  readonly dtype: MergeDtype | undefined;
  /** Whether it says that bitsandbytes quantised the weights. */
  readonly isQuantized: boolean;
}

/**
 * Reads a base's config.json.
 * @throws WeldlineError `checkpoint.config-missing`, `checkpoint.config-invalid`,
 *   `checkpoint.quantized-base`
 */
export async function readModelConfig(files: ModelFiles): Promise<ModelConfig> {
  const where = `${files.name}/${MODEL_CONFIG_FILE}`;
  if (!files.sizes.has(MODEL_CONFIG_FILE)) {
    throw new WeldlineError(
      'checkpoint.config-missing',
      `${files.name} has no ${MODEL_CONFIG_FILE}, so it is no Hugging Face checkpoint.`,
    );
  }
  const text = await readTextFile(files, MODEL_CONFIG_FILE);
  let json: unknown;
  try {
    json = parseJson(text);
  } catch (error) {
    throw new WeldlineError('checkpoint.config-invalid', `${where} is not JSON.`, { cause: error });
  }
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    throw new WeldlineError('checkpoint.config-invalid', `${where}: ${problemsOf(parsed.error)}.`);
  }
  const config = parsed.data;
  const isQuantized = config.quantization_config != null;
  if (isQuantized) checkMethod(where, config.quantization_config ?? {});
  return {
    text,
    modelType: config.model_type,
    tieWordEmbeddings:
      config.tie_word_embeddings ?? config.text_config?.tie_word_embeddings ?? undefined,
    hasTextConfig: config.text_config != null,
    dtype: toDtype(config.dtype ?? config.torch_dtype),
    isQuantized,
  };
}

function toDtype(value: unknown): MergeDtype | undefined {
  return typeof value === 'string' && Object.hasOwn(DTYPE_BY_TORCH_NAME, value)
    ? DTYPE_BY_TORCH_NAME[value as TorchDtype]
    : undefined;
}

/** Early versions of bitsandbytes' integration wrote no method, only what was asked for. */
function checkMethod(where: string, quantization: z.infer<typeof quantizationSchema>): void {
  const { quant_method, load_in_4bit, load_in_8bit } = quantization;
  const isAskedFor = load_in_4bit === true || load_in_8bit === true;
  const method = quant_method ?? (isAskedFor ? 'bitsandbytes' : undefined);
  if (method === 'bitsandbytes') return;
  throw new WeldlineError(
    'checkpoint.quantized-base',
    `${where} has a quantization_config (${method ?? 'of no known method'}): the base is ` +
      'quantised, and this version of weldline dequantises bitsandbytes only. Use the original ' +
      '16-bit checkpoint.',
  );
}
