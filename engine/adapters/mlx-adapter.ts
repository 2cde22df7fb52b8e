import { z } from 'zod';
import { WeldlineError } from '../errors.ts';
import { parseJson } from '../json-text.ts';
import { type ModelFiles, readTextFile } from '../model-files.ts';
import type { TensorEntry } from '../safetensors/header.ts';
import { problemsOf } from '../schema-problems.ts';
import { ADAPTER_CONFIG_FILE, type LoraConfig, loraConfigOf } from './adapter-config.ts';
import type { FoundPair } from './lora-pair.ts';
import type { ModuleScaling } from './scaling.ts';

const schema = z.looseObject({
  fine_tune_type: z.string().default('lora'),
  lora_parameters: z
    .looseObject({
      rank: z.number().int().positive(),
      scale: z.number(),
      alpha: z.number().optional(),
    })
    .nullish(),
  model: z.string().nullish(),
});

/** What an MLX adapter is, in the terms of PEFT. */
export interface MlxAdapter {
  readonly config: LoraConfig;
  readonly found: readonly FoundPair[];
  /** The same for all modules: `scale` is the factor itself, and not divided by the rank. */
  readonly scaling: ModuleScaling;
  readonly warnings: readonly string[];
}

/**
 * Reads an adapter of mlx-lm: of a linear layer `lora_a` [in, r] and `lora_b` [r, out] with
 * `W += scale · (lora_a lora_b)ᵀ`; of an embedding `lora_a` [tokens, r] and `lora_b` [r, hidden] with
 * `W += scale · lora_a lora_b`; with DoRA, `m` [rows], the lengths of the rows of W. Source:
 * `mlx_lm/tuner/lora.py`, `dora.py` and `utils.py` (`load_adapters`).
 *
 * @throws WeldlineError `adapter.config-missing`, `adapter.config-invalid`,
 *   `adapter.unsupported-feature`, `adapter.unknown-key`, `adapter.half-pair`, `adapter.bad-shape`
 */
export async function readMlxAdapter(
  files: ModelFiles,
  tensors: readonly TensorEntry[],
): Promise<MlxAdapter> {
  const where = `${files.name}/${ADAPTER_CONFIG_FILE}`;
  const { fine_tune_type: type, lora_parameters: parameters, model } = await readConfig(files);
  if (type !== 'lora' && type !== 'dora') {
    throw new WeldlineError(
      'adapter.unsupported-feature',
      `${where}: fine_tune_type is ${JSON.stringify(type.slice(0, 100))}. Of MLX, weldline merges ` +
        'lora and dora. Fuse the model with mlx_lm.fuse, and take the result as a base.',
    );
  }
  if (parameters == null) {
    throw new WeldlineError(
      'adapter.config-invalid',
      `${where} has no lora_parameters, so neither rank nor scale is known. Take the configuration ` +
        'that mlx_lm.lora wrote beside the weights.',
    );
  }
  checkAlpha(where, parameters);
  const { rank, scale } = parameters;
  return {
    config: loraConfigOf({
      r: rank,
      lora_alpha: scale * rank,
      use_dora: type === 'dora',
      // In MLX a tied embedding with LoRA is also the head with that LoRA.
      ensure_weight_tying: true,
      base_model_name_or_path: model,
    }),
    found: pairUp(tensors, files.name),
    scaling: { rank, alpha: scale * rank, scaling: scale },
    warnings: warningsOf(files.name, model ?? ''),
  };
}

async function readConfig(files: ModelFiles): Promise<z.infer<typeof schema>> {
  const where = `${files.name}/${ADAPTER_CONFIG_FILE}`;
  if (!files.sizes.has(ADAPTER_CONFIG_FILE)) {
    throw new WeldlineError(
      'adapter.config-missing',
      `${files.name} has MLX's adapters.safetensors and no ${ADAPTER_CONFIG_FILE}, without which ` +
        'the scale is not known. Add the file that mlx_lm.lora wrote.',
    );
  }
  let json: unknown;
  try {
    json = parseJson(await readTextFile(files, ADAPTER_CONFIG_FILE));
  } catch (error) {
    if (error instanceof WeldlineError) throw error;
    throw new WeldlineError('adapter.config-invalid', `${where} is not JSON.`, { cause: error });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new WeldlineError('adapter.config-invalid', `${where}: ${problemsOf(parsed.error)}.`);
}

/** Until June 2024 the factor was scale · alpha / rank; since then alpha is ignored where it is. */
function checkAlpha(
  where: string,
  { rank, scale, alpha }: { rank: number; scale: number; alpha?: number | undefined },
): void {
  if (alpha === undefined || alpha === rank) return;
  throw new WeldlineError(
    'adapter.bad-alpha',
    `${where}: lora_parameters has alpha ${alpha}, and what that means depends on the version of ` +
      'mlx-lm, which is not in the file. In a copy remove alpha, and if you trained before June ' +
      `2024 (mlx-lm 0.14 or earlier), set scale to ${(scale * alpha) / rank} (scale · alpha / rank).`,
  );
}

function pairUp(tensors: readonly TensorEntry[], where: string): FoundPair[] {
  const pairs = new Map<string, FoundPair>();
  for (const tensor of tensors) {
    const [, module = '', part] = /^(.+)\.(lora_a|lora_b|m)$/.exec(tensor.name) ?? [];
    if (part === undefined) {
      throw new WeldlineError(
        'adapter.unknown-key',
        `${where}: tensor "${tensor.name}" is none that mlx-lm saves for LoRA or DoRA (lora_a, ` +
          'lora_b, m). Weldline will not merge the adapter in part.',
      );
    }
    const pair = pairs.get(module) ?? newPair(module);
    // [rank, …] is an A to PEFT and […, rank] a B, of the delta's transpose but for embeddings.
    if (part === 'm') pair.lora_magnitude = tensor;
    else if (part === 'lora_a') pair.lora_B = tensor;
    else pair.lora_A = tensor;
    pairs.set(module, pair);
  }
  for (const pair of pairs.values()) checkPair(pair, where);
  return [...pairs.values()];
}

const EMBEDDING = /(^|\.)(embed_tokens|wte|embed_in|word_embeddings)$/;

function newPair(module: string): FoundPair {
  return { module, layer: 'linear', ...(!EMBEDDING.test(module) && { isOfTranspose: true }) };
}

function checkPair({ module, lora_A: second, lora_B: first }: FoundPair, where: string): void {
  if (first === undefined || second === undefined) {
    throw new WeldlineError(
      'adapter.half-pair',
      `${where}: module "${module}" has no lora_${first === undefined ? 'a' : 'b'}. The file is ` +
        'incomplete; save the adapter again.',
    );
  }
  if (first.shape.length === 3 && second.shape.length === 3) {
    throw new WeldlineError(
      'adapter.unsupported-feature',
      `${where}: module "${module}" has LoRA on the experts of a mixture, which MLX stacks. This ` +
        'version of weldline does not merge that, and will not merge the adapter in part.',
    );
  }
  if (first.shape.length === 2 && second.shape.length === 2 && first.shape[1] === second.shape[0]) {
    return;
  }
  throw new WeldlineError(
    'adapter.bad-shape',
    `${where}: module "${module}" has lora_a [${first.shape.join(', ')}] and lora_b ` +
      `[${second.shape.join(', ')}]; expected [in, r] and [r, out] of one rank.`,
  );
}

function warningsOf(where: string, model: string): string[] {
  if (!/[-_](\d-?bit|mxfp\d|nvfp\d|q\d|int\d)\b/i.test(model)) return [];
  return [
    `${where} was trained with MLX on ${model.slice(0, 100)}, by its name a quantised model; it is ` +
      'merged onto the weights of the base that you name, which are not exactly those.',
  ];
}
