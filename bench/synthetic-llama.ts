import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { byteLengthOf, layoutFile, type TensorSpec } from '../engine/safetensors/layout.ts';
import { formatIndex, INDEX_FILE } from '../engine/safetensors/weight-index.ts';

/** What decides names, shapes and files of a decoder. */
export interface Shape {
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  /** Heads of keys and values times their size. */
  readonly keyValueWidth: number;
  readonly vocabulary: number;
  readonly shards: number;
  /** Of each layer; dense without. */
  readonly experts?: number;
}

/** Llama 3 70B: 723 tensors, 141 GB in bfloat16. */
export const LLAMA_70B: Shape = {
  layers: 80,
  hidden: 8192,
  intermediate: 28_672,
  keyValueWidth: 1024,
  vocabulary: 128_256,
  shards: 30,
};

/** Llama 3.1 405B: 1,137 tensors, 812 GB in bfloat16. */
export const LLAMA_405B: Shape = {
  layers: 126,
  hidden: 16_384,
  intermediate: 53_248,
  keyValueWidth: 1024,
  vocabulary: 128_256,
  shards: 191,
};

/** A mixture of experts of 404 billion parameters: 36,945 tensors. */
export const MOE_400B: Shape = {
  layers: 94,
  hidden: 4096,
  intermediate: 2688,
  keyValueWidth: 512,
  vocabulary: 151_936,
  shards: 163,
  experts: 128,
};

/** The same model with fewer bytes: as many tensors and files, every extent divided. */
export function scaledDown(shape: Shape, divisor: number): Shape {
  const scaled = (extent: number): number => Math.max(8, Math.round(extent / divisor / 8) * 8);
  return {
    ...shape,
    hidden: scaled(shape.hidden),
    intermediate: scaled(shape.intermediate),
    keyValueWidth: scaled(shape.keyValueWidth),
    vocabulary: scaled(shape.vocabulary),
  };
}

export interface SyntheticModel {
  readonly base: string;
  readonly adapter: string;
  readonly tensors: number;
  readonly shards: number;
  /** Bytes of the base's weights. */
  readonly weightBytes: number;
  readonly largestTensorBytes: number;
}

export interface SyntheticAdapter {
  readonly rank: number;
  /** It changes the first so many; all if not given. */
  readonly adaptedLayers?: number;
}

type Linear = readonly [path: string, out: number, input: number];

/**
 * Writes a base and an adapter for the linear layers of its attention and, where it is dense, of its
 * MLPs. Values are the same block of random ones again and again.
 */
export async function writeSyntheticModel(
  directory: string,
  shape: Shape,
  { rank, adaptedLayers = shape.layers }: SyntheticAdapter,
): Promise<SyntheticModel> {
  const base = join(directory, 'base');
  const adapter = join(directory, 'adapter');
  await mkdir(base, { recursive: true });
  await mkdir(adapter, { recursive: true });
  const specs = baseSpecs(shape);
  const block = randomBlock();
  const fileByTensor = new Map<string, string>();
  const files = cut(specs, shape.shards);
  for (const [index, some] of files.entries()) {
    const number = (value: number): string => String(value).padStart(5, '0');
    const file = `model-${number(index + 1)}-of-${number(files.length)}.safetensors`;
    await writeTensors(join(base, file), some, block);
    for (const { name } of some) fileByTensor.set(name, file);
  }
  const sizes = specs.map(byteLengthOf);
  const weightBytes = sizes.reduce((a, b) => a + b, 0);
  await writeFile(join(base, INDEX_FILE), formatIndex(fileByTensor, weightBytes));
  await writeJson(join(base, 'config.json'), modelConfig(shape));
  const linear = trained(shape);
  const factors = Array.from({ length: adaptedLayers }, (_, layer) =>
    linear.flatMap(([path, out, input]): TensorSpec[] => {
      const prefix = `base_model.model.model.layers.${layer}.${path}`;
      return [
        { name: `${prefix}.lora_A.weight`, dtype: 'BF16', shape: [rank, input] },
        { name: `${prefix}.lora_B.weight`, dtype: 'BF16', shape: [out, rank] },
      ];
    }),
  );
  await writeTensors(join(adapter, 'adapter_model.safetensors'), factors.flat(), block);
  await writeJson(join(adapter, 'adapter_config.json'), {
    peft_type: 'LORA',
    r: rank,
    lora_alpha: 2 * rank,
    target_modules: linear.map(([path]) => path.split('.').at(-1)),
    layers_to_transform: Array.from({ length: adaptedLayers }, (_, layer) => layer),
  });
  const largestTensorBytes = sizes.reduce((a, b) => Math.max(a, b), 0);
  const shards = files.length;
  return { base, adapter, tensors: specs.length, shards, weightBytes, largestTensorBytes };
}

function attention({ hidden, keyValueWidth }: Shape): Linear[] {
  return [
    ['self_attn.q_proj', hidden, hidden],
    ['self_attn.k_proj', keyValueWidth, hidden],
    ['self_attn.v_proj', keyValueWidth, hidden],
    ['self_attn.o_proj', hidden, hidden],
  ];
}

function mlp({ hidden, intermediate }: Shape, prefix: string): Linear[] {
  return [
    [`${prefix}.gate_proj`, intermediate, hidden],
    [`${prefix}.up_proj`, intermediate, hidden],
    [`${prefix}.down_proj`, hidden, intermediate],
  ];
}

function trained(shape: Shape): Linear[] {
  return [...attention(shape), ...(shape.experts === undefined ? mlp(shape, 'mlp') : [])];
}

function baseSpecs(shape: Shape): TensorSpec[] {
  const { layers, hidden, vocabulary, experts } = shape;
  const tensor = (name: string, ...extents: number[]): TensorSpec => ({
    name,
    dtype: 'BF16',
    shape: extents,
  });
  const specs = [tensor('model.embed_tokens.weight', vocabulary, hidden)];
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}.`;
    const mlps =
      experts === undefined
        ? mlp(shape, 'mlp')
        : Array.from({ length: experts }, (_, expert) =>
            mlp(shape, `mlp.experts.${expert}`),
          ).flat();
    specs.push(
      tensor(`${prefix}input_layernorm.weight`, hidden),
      tensor(`${prefix}post_attention_layernorm.weight`, hidden),
      ...(experts === undefined ? [] : [tensor(`${prefix}mlp.gate.weight`, experts, hidden)]),
      ...[...attention(shape), ...mlps].map(([path, out, input]) =>
        tensor(`${prefix}${path}.weight`, out, input),
      ),
    );
  }
  return [
    ...specs,
    tensor('model.norm.weight', hidden),
    tensor('lm_head.weight', vocabulary, hidden),
  ];
}

/** Into files of about the same size, in the order of the tensors; none is empty. */
function cut(specs: readonly TensorSpec[], shards: number): TensorSpec[][] {
  const total = specs.reduce((sum, spec) => sum + byteLengthOf(spec), 0);
  const files = Array.from({ length: shards }, (): TensorSpec[] => []);
  let begin = 0;
  for (const spec of specs) {
    files[Math.min(shards - 1, Math.floor((begin * shards) / total))]?.push(spec);
    begin += byteLengthOf(spec);
  }
  return files.filter(({ length }) => length > 0);
}

/** Random values are made once: making all of them would take longer than the merge. */
const BLOCK_BYTES = 4 * 1024 * 1024;

/** bfloat16 of about ±0.02, from a fixed seed. */
function randomBlock(): Uint8Array {
  const values = new Uint16Array(BLOCK_BYTES / 2);
  let state = 7;
  for (let index = 0; index < values.length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    // Sign and mantissa from the high bits; exponents from 2^-8 to 2^-6.
    const exponent = 119 + ((state >>> 8) % 3);
    values[index] = ((state >>> 31) << 15) | (exponent << 7) | ((state >>> 16) & 0x7f);
  }
  return new Uint8Array(values.buffer);
}

async function writeTensors(
  path: string,
  specs: readonly TensorSpec[],
  block: Uint8Array,
): Promise<void> {
  const { header, size } = layoutFile(specs);
  const file = await open(path, 'w');
  try {
    await file.write(header);
    for (let left = size - header.length; left > 0; left -= block.length) {
      await file.write(block, 0, Math.min(left, block.length));
    }
  } finally {
    await file.close();
  }
}

function modelConfig({ layers, hidden, intermediate, vocabulary, experts }: Shape): object {
  return {
    ...(experts === undefined
      ? { architectures: ['LlamaForCausalLM'], model_type: 'llama' }
      : { architectures: ['Qwen3MoeForCausalLM'], model_type: 'qwen3_moe', num_experts: experts }),
    dtype: 'bfloat16',
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    tie_word_embeddings: false,
    vocab_size: vocabulary,
  };
}

async function writeJson(path: string, value: object): Promise<void> {
  await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}
