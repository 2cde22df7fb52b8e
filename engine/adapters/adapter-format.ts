import { WeldlineError } from '../errors.ts';
import { parseJson } from '../json-text.ts';
import { type ModelFiles, readTextFile } from '../model-files.ts';
import { ADAPTER_CONFIG_FILE } from './adapter-config.ts';

/** Whose layout an adapter has; of PEFT, also which of its two. */
export type AdapterFormat = 'peft' | 'peft-pickle' | 'mlx' | 'kohya';

export const ADAPTER_WEIGHTS_FILE = 'adapter_model.safetensors';
export const ADAPTER_PICKLE_FILE = 'adapter_model.bin';
export const MLX_WEIGHTS_FILE = 'adapters.safetensors';

const TRAINING_SHARDS: readonly (readonly [RegExp, string])[] = [
  [
    /\.distcp$/,
    'a distributed checkpoint (FSDP, DCP). Consolidate it: "accelerate merge-weights DIR OUTPUT" ' +
      'or "python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR FILE"',
  ],
  [
    /(^|\/)(global_step\d+\/|zero_pp_rank_|bf16_zero_pp_rank_|zero_to_fp32\.py$)/,
    'a DeepSpeed checkpoint. Consolidate it: "python zero_to_fp32.py DIR OUTPUT --safe_serialization"',
  ],
  [/(^|\/)mp_rank_\d+/, 'a tensor-parallel checkpoint. Consolidate it with its trainer'],
];

/**
 * Recognises the format of an adapter by its files.
 *
 * @returns the format and the file that holds its weights
 * @throws WeldlineError `adapter.training-shards`, `adapter.weights-missing`, `adapter.config-invalid`
 */
export async function recognizeFormat(
  files: ModelFiles,
): Promise<{ readonly format: AdapterFormat; readonly weightsFile: string }> {
  const { sizes } = files;
  const hasPeft = sizes.has(ADAPTER_WEIGHTS_FILE);
  if (sizes.has(MLX_WEIGHTS_FILE) && (!hasPeft || !(await isPeftConfig(files)))) {
    return { format: 'mlx', weightsFile: MLX_WEIGHTS_FILE };
  }
  if (hasPeft) return { format: 'peft', weightsFile: ADAPTER_WEIGHTS_FILE };
  if (sizes.has(ADAPTER_PICKLE_FILE)) {
    return { format: 'peft-pickle', weightsFile: ADAPTER_PICKLE_FILE };
  }
  const [only, ...others] = [...sizes.keys()].filter((path) => /^[^/]+\.safetensors$/.test(path));
  // One file, and no configuration beside it: what trainers of the kohya family write.
  if (only !== undefined && others.length === 0 && !sizes.has(ADAPTER_CONFIG_FILE)) {
    return { format: 'kohya', weightsFile: only };
  }
  throw findTrainingShards(sizes.keys(), files.name) ?? noWeights(files);
}

/**
 * An error for directories that hold the state of a training, in parts, and no adapter.
 * @param where what a person would call it
 */
export function findTrainingShards(
  paths: Iterable<string>,
  where: string,
): WeldlineError | undefined {
  const names = [...paths];
  for (const [pattern, what] of TRAINING_SHARDS) {
    const path = names.find((name) => pattern.test(name));
    if (path === undefined) continue;
    return new WeldlineError(
      'adapter.training-shards',
      `${where} has no adapter, but ${path}: it is ${what}, load the result with PEFT, and ` +
        'save the adapter with save_pretrained.',
    );
  }
  return undefined;
}

async function isPeftConfig(files: ModelFiles): Promise<boolean> {
  if (!files.sizes.has(ADAPTER_CONFIG_FILE)) return true;
  try {
    const json = parseJson(await readTextFile(files, ADAPTER_CONFIG_FILE));
    return typeof json === 'object' && json !== null && 'peft_type' in json;
  } catch (error) {
    if (error instanceof WeldlineError) throw error;
    // Told where it is read for good.
    return true;
  }
}

function noWeights({ name, sizes }: ModelFiles): WeldlineError {
  const hasArrays = sizes.has('adapters.npz');
  return new WeldlineError(
    'adapter.weights-missing',
    `${name} has no ${ADAPTER_WEIGHTS_FILE}` +
      (hasArrays
        ? ', but adapters.npz, as MLX wrote until March 2024. Save it as adapters.safetensors: ' +
          'mx.save_safetensors("adapters.safetensors", mx.load("adapters.npz")).'
        : ". Point to the directory that PEFT's save_pretrained wrote."),
  );
}
