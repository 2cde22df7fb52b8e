import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { byteLengthOf, layoutFile, type TensorSpec } from '../engine/safetensors/layout.ts';
import { formatIndex, INDEX_FILE } from '../engine/safetensors/weight-index.ts';

/** Shape of a Qwen3 mixture of experts: 94 layers of 128 experts are 404 billion parameters. */
const HIDDEN = 4096;
const EXPERT_INTERMEDIATE = 2688;
const HEAD = 128;
const QUERY_WIDTH = 64 * HEAD;
const KV_WIDTH = 4 * HEAD;

const SHARD_BYTES_MAX = 2_000_000_000;

/** Output and input features of each linear layer, by its path in a decoder layer. */
const ATTENTION: readonly (readonly [path: string, out: number, input: number])[] = [
  ['self_attn.q_proj', QUERY_WIDTH, HIDDEN],
  ['self_attn.k_proj', KV_WIDTH, HIDDEN],
  ['self_attn.v_proj', KV_WIDTH, HIDDEN],
  ['self_attn.o_proj', HIDDEN, QUERY_WIDTH],
];
const EXPERT: readonly (readonly [path: string, out: number, input: number])[] = [
  ['gate_proj', EXPERT_INTERMEDIATE, HIDDEN],
  ['up_proj', EXPERT_INTERMEDIATE, HIDDEN],
  ['down_proj', HIDDEN, EXPERT_INTERMEDIATE],
];

export interface SyntheticMoeOptions {
  readonly layers?: number;
  readonly experts?: number;
  readonly vocabulary?: number;
  readonly rank?: number;
  /** What the adapter changes: attention alone, or every expert too. */
  readonly targets?: 'attention' | 'all-linear';
}

export interface SyntheticMoe {
  readonly base: string;
  readonly adapter: string;
  readonly tensors: number;
  readonly shards: number;
  /** Of the base's weights, as their files claim; on disk they are holes. */
  readonly weightBytes: number;
}

/**
 * Makes a mixture of experts whose headers are real and whose weights are holes of sparse files,
 * and an adapter for it: for what reads headers only. By default 36,945 tensors in 808 GB.
 */
export async function makeSyntheticMoe(
  directory: string,
  { targets = 'attention', ...options }: SyntheticMoeOptions = {},
): Promise<SyntheticMoe> {
  const { layers = 94, experts = 128, vocabulary = 151_936, rank = 8 } = options;
  const base = join(directory, 'base');
  const adapter = join(directory, 'adapter');
  await mkdir(base, { recursive: true });
  await mkdir(adapter, { recursive: true });
  const shards = cutIntoShards(baseSpecs(layers, experts, vocabulary));
  const fileByTensor = new Map<string, string>();
  let weightBytes = 0;
  for (const [index, specs] of shards.entries()) {
    const number = (value: number): string => String(value).padStart(5, '0');
    const file = `model-${number(index + 1)}-of-${number(shards.length)}.safetensors`;
    weightBytes += await writeSparse(join(base, file), specs);
    for (const { name } of specs) fileByTensor.set(name, file);
  }
  await writeFile(join(base, INDEX_FILE), formatIndex(fileByTensor, weightBytes));
  await writeJson(join(base, 'config.json'), modelConfig(layers, experts, vocabulary));
  const modules = [...ATTENTION, ...(targets === 'attention' ? [] : EXPERT)];
  await writeSparse(
    join(adapter, 'adapter_model.safetensors'),
    adapterSpecs(layers, targets === 'attention' ? 0 : experts, rank),
  );
  await writeJson(join(adapter, 'adapter_config.json'), {
    peft_type: 'LORA',
    r: rank,
    lora_alpha: 2 * rank,
    target_modules: modules.map(([path]) => path.split('.').at(-1)),
  });
  return { base, adapter, tensors: fileByTensor.size, shards: shards.length, weightBytes };
}

function baseSpecs(layers: number, experts: number, vocabulary: number): TensorSpec[] {
  const tensor = (name: string, ...shape: number[]): TensorSpec => ({ name, dtype: 'BF16', shape });
  const specs = [tensor('model.embed_tokens.weight', vocabulary, HIDDEN)];
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}.`;
    const linear = linearLayers(layer, experts);
    specs.push(
      tensor(`${prefix}input_layernorm.weight`, HIDDEN),
      tensor(`${prefix}self_attn.q_norm.weight`, HEAD),
      tensor(`${prefix}self_attn.k_norm.weight`, HEAD),
      tensor(`${prefix}post_attention_layernorm.weight`, HIDDEN),
      tensor(`${prefix}mlp.gate.weight`, experts, HIDDEN),
      ...linear.map(([path, out, input]) => tensor(`${path}.weight`, out, input)),
    );
  }
  return [
    ...specs,
    tensor('model.norm.weight', HIDDEN),
    tensor('lm_head.weight', vocabulary, HIDDEN),
  ];
}

/** The paths of a layer's modules that an adapter can change, with their features. */
function linearLayers(layer: number, experts: number): [path: string, out: number, in_: number][] {
  const prefix = `model.layers.${layer}.`;
  const inExperts = Array.from({ length: experts }, (_, expert) =>
    EXPERT.map(([path, out, input]): [string, number, number] => [
      `${prefix}mlp.experts.${expert}.${path}`,
      out,
      input,
    ]),
  );
  return [
    ...ATTENTION.map(([path, out, input]): [string, number, number] => [prefix + path, out, input]),
    ...inExperts.flat(),
  ];
}

function adapterSpecs(layers: number, experts: number, rank: number): TensorSpec[] {
  return Array.from({ length: layers }, (_, layer) =>
    linearLayers(layer, experts).flatMap(([path, out, input]): TensorSpec[] => [
      { name: `base_model.model.${path}.lora_A.weight`, dtype: 'BF16', shape: [rank, input] },
      { name: `base_model.model.${path}.lora_B.weight`, dtype: 'BF16', shape: [out, rank] },
    ]),
  ).flat();
}

function cutIntoShards(specs: readonly TensorSpec[]): TensorSpec[][] {
  const shards: TensorSpec[][] = [[]];
  let bytes = 0;
  for (const spec of specs) {
    const size = byteLengthOf(spec);
    if (bytes > 0 && bytes + size > SHARD_BYTES_MAX) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)?.push(spec);
    bytes += size;
  }
  return shards;
}

/** @returns bytes of the tensors */
async function writeSparse(path: string, specs: readonly TensorSpec[]): Promise<number> {
  const { header, size } = layoutFile(specs);
  const file = await open(path, 'w');
  try {
    await file.write(header);
    await file.truncate(size);
  } finally {
    await file.close();
  }
  return size - header.length;
}

function modelConfig(layers: number, experts: number, vocabulary: number): object {
  return {
    architectures: ['Qwen3MoeForCausalLM'],
    model_type: 'qwen3_moe',
    dtype: 'bfloat16',
    head_dim: HEAD,
    hidden_size: HIDDEN,
    moe_intermediate_size: EXPERT_INTERMEDIATE,
    num_attention_heads: QUERY_WIDTH / HEAD,
    num_experts: experts,
    num_experts_per_tok: Math.min(8, experts),
    num_hidden_layers: layers,
    num_key_value_heads: KV_WIDTH / HEAD,
    tie_word_embeddings: false,
    vocab_size: vocabulary,
  };
}

async function writeJson(path: string, value: object): Promise<void> {
  await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}
