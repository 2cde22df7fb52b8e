/**
 * Which files of a repository weldline downloads: weights in safetensors and what must travel with
 * them. Never pickles (`*.bin`, `*.pt`; but for `adapter_model.bin`, which is read and never run),
 * GGUF, ONNX, TensorFlow or Flax weights, images or logs.
 */
import {
  ADAPTER_PICKLE_FILE,
  ADAPTER_WEIGHTS_FILE,
  findTrainingShards,
  MLX_WEIGHTS_FILE,
} from '../engine/adapters/adapter-format.ts';
import { WeldlineError } from '../engine/errors.ts';

interface Listed {
  readonly path: string;
}

export interface SelectOptions {
  /** Folder of the repository the model is in; empty for the root. */
  readonly folder?: string | undefined;
  /**
   * The file names in the `weight_map` of `model.safetensors.index.json`, if it was read. Without
   * them the names of shards are recognized by their pattern.
   */
  readonly weightNames?: readonly string[] | undefined;
  /** How the model is called in errors. */
  readonly name: string;
}

const TOKENIZER_FILES: readonly RegExp[] = [
  /^tokenizer[^/]*\.(?:json|model)$/,
  /^(?:special_tokens_map|added_tokens|vocab|tekken)\.json$/,
  /^(?:merges|vocab)\.txt$/,
  /^(?:spiece|sentencepiece|sentencepiece\.bpe)\.model$/,
  /^[^/]*\.tiktoken$/,
  /^chat_template\.(?:jinja|json)$/,
  /^additional_chat_templates\/[^/]+\.jinja$/,
];

/** A licence must travel with what it licenses. */
const LEGAL_FILES: readonly RegExp[] = [
  /^(?:LICEN[CS]E|NOTICE|USE_POLICY|README)(?:[._-][^/]*)?$/i,
];

const BASE_FILES: readonly RegExp[] = [
  ...TOKENIZER_FILES,
  ...LEGAL_FILES,
  /^(?:config|generation_config)\.json$/,
  /^(?:preprocessor|processor|image_processor|video_preprocessor)_config\.json$/,
  // Named by `auto_map` in config.json: the model cannot be loaded without. weldline never runs it.
  /^[^/]+\.py$/,
];

const ADAPTER_FILES: readonly RegExp[] = [
  ...TOKENIZER_FILES,
  ...LEGAL_FILES,
  /^adapter_config\.json$/,
];

const INDEX = 'model.safetensors.index.json';
const SHARD = /^model-\d{5}-of-\d{5}\.safetensors$/;
const PICKLE = /\.(?:bin|pt|pth|ckpt)$/;

/**
 * The files of a base model.
 * @throws WeldlineError `checkpoint.no-weights`, `checkpoint.pickle-only`,
 *   `checkpoint.index-missing-file`
 */
export function selectBaseFiles<File extends Listed>(
  files: readonly File[],
  options: SelectOptions,
): File[] {
  const inside = filesInFolder(files, options.folder);
  const weights = baseWeights(inside, options);
  if (weights.length === 0) {
    const pickles = [...inside.keys()].some((path) => !path.includes('/') && PICKLE.test(path));
    throw pickles
      ? new WeldlineError(
          'checkpoint.pickle-only',
          `${options.name} has its weights as pickles only (*.bin, *.pt), which weldline does not ` +
            'read because loading one can run code. Name a revision or repository with ' +
            'safetensors, or convert it with save_pretrained(safe_serialization=True).',
        )
      : new WeldlineError(
          'checkpoint.no-weights',
          `${options.name} has no safetensors weights: ${listing(inside)}. Check the name, the ` +
            'revision and the folder.',
        );
  }
  return [...new Set([...matching(inside, BASE_FILES), ...weights])];
}

/**
 * The files of an adapter.
 * @throws WeldlineError `adapter.weights-missing`, `adapter.training-shards`
 */
export function selectAdapterFiles<File extends Listed>(
  files: readonly File[],
  options: SelectOptions,
): File[] {
  const inside = filesInFolder(files, options.folder);
  const weights = adapterWeights(inside);
  if (weights.length === 0) {
    throw (
      findTrainingShards(inside.keys(), options.name) ??
      new WeldlineError(
        'adapter.weights-missing',
        `${options.name} has no ${ADAPTER_WEIGHTS_FILE}: ${listing(inside)}. Check the name, ` +
          'the revision and the folder (hf://org/name@revision/folder).',
      )
    );
  }
  return [...new Set([...matching(inside, ADAPTER_FILES), ...weights])];
}

/** By path relative to the folder. */
function filesInFolder<File extends Listed>(
  files: readonly File[],
  folder: string | undefined,
): ReadonlyMap<string, File> {
  const prefix = folder ? `${folder}/` : '';
  return new Map(
    files
      .filter((file) => file.path.startsWith(prefix))
      .map((file) => [file.path.slice(prefix.length), file]),
  );
}

function matching<File>(inside: ReadonlyMap<string, File>, patterns: readonly RegExp[]): File[] {
  return [...inside]
    .filter(([path]) => patterns.some((pattern) => pattern.test(path)))
    .map(([, file]) => file);
}

function baseWeights<File>(inside: ReadonlyMap<string, File>, options: SelectOptions): File[] {
  const index = inside.get(INDEX);
  const single = inside.get('model.safetensors');
  if (index === undefined) {
    if (single !== undefined) return [single];
    return pick(inside, (path) => /^[^/]+\.safetensors$/.test(path));
  }
  if (options.weightNames === undefined) {
    const shards = pick(inside, (path) => SHARD.test(path));
    if (shards.length > 0) return [index, ...shards];
    return [index, ...pick(inside, (path) => /^[^/]+\.safetensors$/.test(path))];
  }
  const named = [...new Set(options.weightNames)].map((weightName) => {
    const file = inside.get(weightName);
    if (file !== undefined) return file;
    throw new WeldlineError(
      'checkpoint.index-missing-file',
      `${INDEX} of ${options.name} names ${JSON.stringify(weightName)}, which the repository does ` +
        'not have: its upload was incomplete. Name another revision.',
    );
  });
  return [index, ...named];
}

/**
 * PEFT's name or MLX's, of both of which the configuration tells which counts; else PEFT's pickle;
 * else the one safetensors file of other trainers.
 */
function adapterWeights<File>(inside: ReadonlyMap<string, File>): File[] {
  const named = [ADAPTER_WEIGHTS_FILE, MLX_WEIGHTS_FILE].flatMap((name) => inside.get(name) ?? []);
  if (named.length > 0) return named;
  const pickle = inside.get(ADAPTER_PICKLE_FILE);
  if (pickle !== undefined) return [pickle];
  const others = pick(inside, (path) => /^[^/]+\.safetensors$/.test(path));
  return others.length === 1 ? others : [];
}

function pick<File>(inside: ReadonlyMap<string, File>, wanted: (path: string) => boolean): File[] {
  return [...inside].filter(([path]) => wanted(path)).map(([, file]) => file);
}

/** A few names, so that the reader sees what kind of repository it is. */
function listing(inside: ReadonlyMap<string, unknown>): string {
  const names = [...inside.keys()];
  if (names.length === 0) return 'it is empty';
  const shown = names.slice(0, 5).join(', ');
  return names.length > 5
    ? `it has ${shown} and ${names.length - 5} more files`
    : `it has ${shown}`;
}
