import { z } from 'zod';
import { WeldlineError } from '../errors.ts';
import { parseJson } from '../json-text.ts';
import { type ModelFiles, readTextFile } from '../model-files.ts';
import { problemsOf } from '../schema-problems.ts';

export const MODEL_CONFIG_FILE = 'config.json';

const schema = z.looseObject({
  model_type: z.string().optional(),
  tie_word_embeddings: z.boolean().nullish(),
  quantization_config: z.unknown().optional(),
  text_config: z.looseObject({ tie_word_embeddings: z.boolean().nullish() }).nullish(),
});

/** The parts of config.json that decide how a model is merged. */
export interface ModelConfig {
  /** The file as it stands: it is edited as text, so that number literals keep their form. */
  readonly text: string;
  readonly modelType: string | undefined;
  readonly tieWordEmbeddings: boolean | undefined;
  readonly hasTextConfig: boolean;
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
  if (config.quantization_config != null) {
    throw new WeldlineError(
      'checkpoint.quantized-base',
      `${where} has a quantization_config: the base is quantised, and this version of weldline ` +
        'merges 16- and 32-bit bases only. Use the original 16-bit checkpoint.',
    );
  }
  return {
    text,
    modelType: config.model_type,
    tieWordEmbeddings:
      config.tie_word_embeddings ?? config.text_config?.tie_word_embeddings ?? undefined,
    hasTextConfig: config.text_config != null,
  };
}
