import { existsSync } from 'node:fs';
import { type FileHandle, mkdir, open, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { formatBytes } from '../cli/format.ts';
import { layoutFile, type TensorSpec } from '../engine/safetensors/layout.ts';

/** Shape of a Llama of about 1.1 billion parameters; the number of layers follows from the size. */
const HIDDEN = 2048;
const INTERMEDIATE = 5632;
const VOCABULARY = 32_000;
const HEADS = 32;
const KV_HEADS = 4;
const KV_WIDTH = (HIDDEN / HEADS) * KV_HEADS;

type LinearLayer = readonly [path: string, out: number, input: number];

/** Output and input features of each linear layer, by its path in a decoder layer. */
const LINEAR_LAYERS: readonly LinearLayer[] = [
  ['self_attn.q_proj', HIDDEN, HIDDEN],
  ['self_attn.k_proj', KV_WIDTH, HIDDEN],
  ['self_attn.v_proj', KV_WIDTH, HIDDEN],
  ['self_attn.o_proj', HIDDEN, HIDDEN],
  ['mlp.gate_proj', INTERMEDIATE, HIDDEN],
  ['mlp.up_proj', INTERMEDIATE, HIDDEN],
  ['mlp.down_proj', HIDDEN, INTERMEDIATE],
];

/** Random values are made once and repeated: making all of them would take longer than the runs. */
const BLOCK_ELEMENTS = 4 * 1024 * 1024;

/** Standard deviations as trained weights and adapters have them. */
const WEIGHT_DEVIATION = 0.02;
const FACTOR_DEVIATION = 0.01;

const CHECKPOINT_FILE = 'model.safetensors';

/** Written last, so that a directory that holds it is whole. */
const CHECKPOINT_MARKER = 'config.json';
const ADAPTER_MARKER = 'adapter_config.json';

/** A checkpoint of about this size, and an adapter for it. */
export interface ModelSpec {
  readonly bytes: number;
  readonly rank: number;
  readonly targets: 'all-linear' | 'attention';
}

export interface BenchModel {
  readonly base: string;
  readonly adapter: string;
  readonly weightBytes: number;
}

/** What must stay free beside all that is written. */
const FREE_BYTES_RESERVE = 1_000_000_000;

/** Bytes of the weights of a base of `layers` decoder layers. */
function weightBytes(layers: number): number {
  return baseSpecs(layers).reduce((sum, { shape }) => sum + 2 * elements(shape), 0);
}

/** The number of layers whose checkpoint comes nearest to `bytes`; at least one. */
function layersFor(bytes: number): number {
  const outside = weightBytes(0);
  return Math.max(1, Math.round((bytes - outside) / (weightBytes(1) - outside)));
}

/** Makes base and adapter under `directory`, or takes what an earlier run has made there. */
export async function makeModel(
  directory: string,
  { bytes, rank, targets }: ModelSpec,
  signal: AbortSignal,
): Promise<BenchModel> {
  const layers = layersFor(bytes);
  const linear = LINEAR_LAYERS.filter(
    ([path]) => targets === 'all-linear' || path.startsWith('self_attn.'),
  );
  const base = join(directory, `llama-${layers}-layers`);
  const adapter = join(directory, `lora-${layers}-layers-r${rank}-${targets}`);
  await makeOnce(base, CHECKPOINT_MARKER, modelConfig(layers), async () => {
    await requireFreeSpace(directory, weightBytes(layers));
    await writeTensors(join(base, CHECKPOINT_FILE), baseSpecs(layers), WEIGHT_DEVIATION, signal);
  });
  await makeOnce(adapter, ADAPTER_MARKER, adapterConfig(rank, linear), async () => {
    const path = join(adapter, 'adapter_model.safetensors');
    await writeTensors(path, adapterSpecs(layers, rank, linear), FACTOR_DEVIATION, signal);
  });
  return { base, adapter, weightBytes: weightBytes(layers) };
}

/** @throws Error that says how much is missing */
export async function requireFreeSpace(directory: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const needed = bytes + FREE_BYTES_RESERVE;
  if (bavail * bsize >= needed) return;
  throw new Error(
    `${directory} has ${formatBytes(bavail * bsize)} free and ${formatBytes(needed)} are needed. ` +
      'Free some space, or choose a smaller --size.',
  );
}

async function makeOnce(
  directory: string,
  marker: string,
  config: object,
  write: () => Promise<void>,
): Promise<void> {
  if (existsSync(join(directory, marker))) return;
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  try {
    await write();
    await writeFile(join(directory, marker), `${JSON.stringify(config, null, 2)}\n`);
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

function baseSpecs(layers: number): TensorSpec[] {
  const tensor = (name: string, ...shape: number[]): TensorSpec => ({ name, dtype: 'BF16', shape });
  const specs = [tensor('model.embed_tokens.weight', VOCABULARY, HIDDEN)];
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}.`;
    specs.push(tensor(`${prefix}input_layernorm.weight`, HIDDEN));
    for (const [path, out, input] of LINEAR_LAYERS) {
      specs.push(tensor(`${prefix}${path}.weight`, out, input));
    }
    specs.push(tensor(`${prefix}post_attention_layernorm.weight`, HIDDEN));
  }
  return [
    ...specs,
    tensor('model.norm.weight', HIDDEN),
    tensor('lm_head.weight', VOCABULARY, HIDDEN),
  ];
}

function adapterSpecs(layers: number, rank: number, linear: readonly LinearLayer[]): TensorSpec[] {
  return Array.from({ length: layers }, (_, layer) =>
    linear.flatMap(([path, out, input]): TensorSpec[] => {
      const prefix = `base_model.model.model.layers.${layer}.${path}`;
      return [
        { name: `${prefix}.lora_A.weight`, dtype: 'F32', shape: [rank, input] },
        { name: `${prefix}.lora_B.weight`, dtype: 'F32', shape: [out, rank] },
      ];
    }),
  ).flat();
}

function modelConfig(layers: number): object {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    dtype: 'bfloat16',
    hidden_act: 'silu',
    hidden_size: HIDDEN,
    intermediate_size: INTERMEDIATE,
    max_position_embeddings: 2048,
    num_attention_heads: HEADS,
    num_hidden_layers: layers,
    num_key_value_heads: KV_HEADS,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    tie_word_embeddings: false,
    vocab_size: VOCABULARY,
  };
}

function adapterConfig(rank: number, linear: readonly LinearLayer[]): object {
  return {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: null,
    r: rank,
    lora_alpha: 2 * rank,
    lora_dropout: 0,
    bias: 'none',
    inference_mode: true,
    target_modules: linear.map(([path]) => path.split('.')[1]),
  };
}

async function writeTensors(
  path: string,
  specs: readonly TensorSpec[],
  deviation: number,
  signal: AbortSignal,
): Promise<void> {
  const { header, tensors } = layoutFile(specs);
  const dtype = specs[0]?.dtype === 'F32' ? 'F32' : 'BF16';
  const block = randomBlock(dtype, deviation);
  const ones = constantBlock(dtype, HIDDEN);
  const file = await open(path, 'w');
  try {
    await file.write(header);
    for (const [index, { shape, byteLength }] of tensors.entries()) {
      signal.throwIfAborted();
      // Norms are about one; a different start for each matrix, so that no two are the same.
      if (shape.length === 1) await file.write(ones, 0, byteLength);
      else await writeFrom(file, block, (index * 1_048_583 * 4) % block.length, byteLength);
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

async function writeFrom(
  file: FileHandle,
  block: Uint8Array,
  start: number,
  length: number,
): Promise<void> {
  for (let done = 0, at = start; done < length; at = 0) {
    const count = Math.min(length - done, block.length - at);
    await file.write(block, at, count);
    done += count;
  }
}

/** Values of about normal distribution, from a fixed seed: every machine makes the same files. */
function randomBlock(dtype: 'BF16' | 'F32', deviation: number): Uint8Array {
  const values = new Float32Array(BLOCK_ELEMENTS);
  let state = 1;
  const uniform = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return (state >>> 8) / 2 ** 24 - 0.5;
  };
  // The sum of four uniforms of variance 1/12 each.
  const scale = deviation / Math.sqrt(4 / 12);
  for (let i = 0; i < values.length; i++) {
    values[i] = scale * (uniform() + uniform() + uniform() + uniform());
  }
  return encode(dtype, values);
}

function constantBlock(dtype: 'BF16' | 'F32', count: number): Uint8Array {
  return encode(dtype, new Float32Array(count).fill(1));
}

/** Floats as stored; bfloat16 by cutting off, which is near enough for random values. */
function encode(dtype: 'BF16' | 'F32', values: Float32Array): Uint8Array {
  if (dtype === 'F32') return new Uint8Array(values.buffer);
  const bits = new Uint32Array(values.buffer);
  return new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer);
}

function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
