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

/** How quantised weights are stored, where they can be dequantised: `quant_method`. */
const METHODS = ['bitsandbytes', 'gptq', 'awq', 'fp8', 'mxfp4'] as const;

export interface QuantizationConfig {
  readonly method: (typeof METHODS)[number];
  /** The whole of `quantization_config`, which each method reads for itself. */
  readonly settings: Readonly<Record<string, unknown>>;
}

/** The parts of config.json that decide how a model is merged. */
export interface ModelConfig {
  /** The file as it stands: it is edited as text, so that number literals keep their form. */
  readonly text: string;
  readonly modelType: string | undefined;
  readonly tieWordEmbeddings: boolean | undefined;
  readonly hasTextConfig: boolean;
  /** Of the model as a whole, where it says so. */
  readonly dtype: MergeDtype | undefined;
  /** What it says of how the weights are quantised, if they are. */
  readonly quantization: QuantizationConfig | undefined;
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
  const settings = config.quantization_config;
  return {
    text,
    modelType: config.model_type,
    tieWordEmbeddings:
      config.tie_word_embeddings ?? config.text_config?.tie_word_embeddings ?? undefined,
    hasTextConfig: config.text_config != null,
    dtype: toDtype(config.dtype ?? config.torch_dtype),
    quantization: settings == null ? undefined : toQuantization(where, settings),
  };
}

function toDtype(value: unknown): MergeDtype | undefined {
  return typeof value === 'string' && Object.hasOwn(DTYPE_BY_TORCH_NAME, value)
    ? DTYPE_BY_TORCH_NAME[value as TorchDtype]
    : undefined;
}

/** Early versions of bitsandbytes' integration wrote no method, only what was asked for. */
function toQuantization(
  where: string,
  settings: z.infer<typeof quantizationSchema>,
): QuantizationConfig {
  const { quant_method, load_in_4bit, load_in_8bit } = settings;
  const isAskedFor = load_in_4bit === true || load_in_8bit === true;
  const named = quant_method ?? (isAskedFor ? 'bitsandbytes' : undefined);
  const method = METHODS.find((known) => known === named);
  if (method !== undefined) return { method, settings };
  throw new WeldlineError(
    'checkpoint.quantized-base',
    `${where} has a quantization_config (${named?.slice(0, 100) ?? 'of no known method'}): the ` +
      `base is quantised, and this version of weldline dequantises ${METHODS.join(', ')} only. Use ` +
      'the original 16-bit checkpoint.',
  );
}
