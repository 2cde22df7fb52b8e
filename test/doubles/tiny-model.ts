import { Random } from './random.ts';
import { type TestTensor, writeSafetensors } from './write-safetensors.ts';

/** A model or adapter in memory, in a form that is easy to spoil before it becomes files. */
export interface TinyModel {
  config: Record<string, unknown>;
  tensors: TestTensor[];
  /** Files beside the usual ones, or in place of them; null removes one. */
  files: Record<string, Uint8Array | string | null>;
  /** Tensors go into this many shards with an index; 1 is a single file without. */
  shards: number;
}

export type FloatName = 'BF16' | 'F16' | 'F32';

/** Shapes [out, in] of one layer: hidden 64, 4 heads, 2 key-value heads, intermediate 128. */
const LAYER_SHAPES = {
  'self_attn.q_proj': [64, 64],
  'self_attn.k_proj': [32, 64],
  'self_attn.v_proj': [32, 64],
  'self_attn.o_proj': [64, 64],
  'mlp.gate_proj': [128, 64],
  'mlp.up_proj': [128, 64],
  'mlp.down_proj': [64, 128],
} as const;

const LAYERS = 2;
const VOCABULARY = 100;
const HIDDEN = 64;

export interface TinyBaseOptions {
  readonly dtype?: FloatName;
  readonly tied?: boolean;
  readonly shards?: number;
}

/** A Llama of two layers with pseudo-random weights. */
export function tinyBase(options: TinyBaseOptions = {}): TinyModel {
  const { dtype = 'BF16', tied = false, shards = 1 } = options;
  const random = new Random(1);
  const tensor = (name: string, ...shape: number[]): TestTensor =>
    randomTensor(random, name, dtype, shape);
  const tensors = [tensor('model.embed_tokens.weight', VOCABULARY, HIDDEN)];
  for (let layer = 0; layer < LAYERS; layer++) {
    for (const [module, shape] of Object.entries(LAYER_SHAPES)) {
      tensors.push(tensor(`model.layers.${layer}.${module}.weight`, ...shape));
    }
    tensors.push(tensor(`model.layers.${layer}.input_layernorm.weight`, HIDDEN));
  }
  tensors.push(tensor('model.norm.weight', HIDDEN));
  if (!tied) tensors.push(tensor('lm_head.weight', VOCABULARY, HIDDEN));
  const config = { model_type: 'llama', tie_word_embeddings: tied, torch_dtype: 'bfloat16' };
  return { config, tensors, files: {}, shards };
}

export interface TinyAdapterOptions {
  readonly rank?: number;
  readonly dtype?: FloatName;
  /** Modules of every layer, by the end of their names. */
  readonly targets?: readonly (keyof typeof LAYER_SHAPES)[];
  readonly seed?: number;
}

/** A LoRA adapter for `tinyBase`, as PEFT saves it. */
export function tinyAdapter(options: TinyAdapterOptions = {}): TinyModel {
  const { rank = 4, dtype = 'F32', seed = 2 } = options;
  const { targets = ['self_attn.q_proj', 'self_attn.v_proj'] } = options;
  const random = new Random(seed);
  const tensors: TestTensor[] = [];
  for (let layer = 0; layer < LAYERS; layer++) {
    for (const target of targets) {
      const [out, inputs] = LAYER_SHAPES[target];
      const stem = `base_model.model.model.layers.${layer}.${target}`;
      tensors.push(randomTensor(random, `${stem}.lora_A.weight`, dtype, [rank, inputs]));
      tensors.push(randomTensor(random, `${stem}.lora_B.weight`, dtype, [out, rank]));
    }
  }
  const config = {
    peft_type: 'LORA',
    r: rank,
    lora_alpha: 2 * rank,
    target_modules: targets.map((target) => target.slice(target.indexOf('.') + 1)),
    base_model_name_or_path: 'tiny',
    bias: 'none',
  };
  return { config, tensors, files: {}, shards: 1 };
}

export function randomTensor(
  random: Random,
  name: string,
  dtype: FloatName,
  shape: readonly number[],
): TestTensor {
  const count = shape.reduce((product, extent) => product * extent, 1);
  return { name, dtype, shape, data: random.floats(dtype, count) };
}

/** Gives a tensor other bytes, shape or dtype; without a change it is removed. */
export function alter(model: TinyModel, name: string, change?: Partial<TestTensor>): void {
  const index = model.tensors.findIndex((tensor) => tensor.name === name);
  if (index < 0) throw new Error(`the model has no ${name}`);
  const tensor = model.tensors[index] as TestTensor;
  model.tensors.splice(index, 1, ...(change === undefined ? [] : [{ ...tensor, ...change }]));
}

export type FileMap = Map<string, Uint8Array>;

/** The files of a base. */
export function baseFiles(model: TinyModel): FileMap {
  const files: FileMap = new Map([
    ['config.json', encode(`${JSON.stringify(model.config, null, 2)}\n`)],
  ]);
  const names = shardNames(model.shards);
  const perShard = Math.ceil(model.tensors.length / names.length);
  const weightMap: Record<string, string> = {};
  for (const [index, name] of names.entries()) {
    const tensors = model.tensors.slice(index * perShard, (index + 1) * perShard);
    files.set(name, writeSafetensors(tensors));
    for (const tensor of tensors) weightMap[tensor.name] = name;
  }
  if (names.length > 1) {
    const index = { metadata: { total_size: 0 }, weight_map: weightMap };
    files.set('model.safetensors.index.json', encode(JSON.stringify(index)));
  }
  return withExtras(files, model);
}

function shardNames(count: number): string[] {
  if (count === 1) return ['model.safetensors'];
  const digits = (value: number): string => String(value).padStart(5, '0');
  return Array.from(
    { length: count },
    (_, index) => `model-${digits(index + 1)}-of-${digits(count)}.safetensors`,
  );
}

/** The files of an adapter. */
export function adapterFiles(model: TinyModel): FileMap {
  const files: FileMap = new Map([
    ['adapter_config.json', encode(`${JSON.stringify(model.config, null, 2)}\n`)],
    ['adapter_model.safetensors', writeSafetensors(model.tensors)],
  ]);
  return withExtras(files, model);
}

function withExtras(files: FileMap, model: TinyModel): FileMap {
  for (const [path, content] of Object.entries(model.files)) {
    if (content === null) files.delete(path);
    else files.set(path, encode(content));
  }
  return files;
}

function encode(content: Uint8Array | string): Uint8Array {
  return typeof content === 'string' ? new TextEncoder().encode(content) : content;
}
