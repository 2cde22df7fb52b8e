import type { CheckpointTensor } from '../safetensors/checkpoint.ts';
import { isMergeDtype } from '../safetensors/dtype.ts';
import { isVocabularyTensor } from './tied-embeddings.ts';

/**
 * Architectures of which every matrix is an `nn.Linear` or a `Conv1D` but for embeddings and the
 * head, by `model_type`. Where experts are, or subclasses of `nn.Linear`, versions of transformers
 * differ in what they quantise. test/golden/linear-modules.json holds what transformers says.
 */
const PLAIN_ARCHITECTURES = new Set([
  ...['cohere', 'cohere2', 'exaone4', 'gemma', 'gemma2', 'gemma3_text', 'glm', 'glm4', 'gpt2'],
  ...[
    'gpt_neox',
    'granite',
    'helium',
    'llama',
    'ministral',
    'mistral',
    'nemotron',
    'olmo',
    'olmo2',
  ],
  ...['olmo3', 'opt', 'phi', 'phi3', 'qwen2', 'qwen3', 'seed_oss', 'smollm3', 'stablelm'],
  ...['starcoder2'],
]);

/** Embeddings beside those of tokens. */
const POSITIONS = /(^|\.)(wpe|embed_positions)\.weight$/;

export function hasPlainModules(modelType: string | undefined): boolean {
  return PLAIN_ARCHITECTURES.has(modelType ?? '');
}

/** Whether bitsandbytes quantises a tensor of such an architecture: not the head, not embeddings. */
export function isLinearWeight({
  name,
  dtype,
  shape,
}: Pick<CheckpointTensor, 'name' | 'dtype' | 'shape'>): boolean {
  const isMatrix = shape.length === 2 && isMergeDtype(dtype) && name.endsWith('.weight');
  return isMatrix && !isVocabularyTensor(name) && !POSITIONS.test(name);
}
