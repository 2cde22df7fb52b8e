import type { Checkpoint } from '../safetensors/checkpoint.ts';
import type { ModelConfig } from './model-config.ts';

/** The output head, by the names that architectures give it. */
const HEAD_TENSOR = /(^|\.)(lm_head|embed_out)\.weight$/;

/** What some heads have beside it. */
const HEAD_BIAS = /(^|\.)(lm_head|embed_out)\.bias$/;

/** The input embedding, by the names that architectures give it. */
const EMBEDDING_TENSOR = /(^|\.)(embed_tokens|wte|embed_in|word_embeddings)\.weight$/;

/** Names of the one tensor that a model with tied embeddings uses at both ends. */
export interface TiedEmbeddings {
  /** The tensor on disk. */
  readonly embedding: string;
  /** The name the head has, or would have, on disk. */
  readonly head: string;
}

/** Whether a tensor has a row for each token, by its name. */
export function isVocabularyTensor(name: string): boolean {
  return [EMBEDDING_TENSOR, HEAD_TENSOR, HEAD_BIAS].some((pattern) => pattern.test(name));
}

/** The tensors of a checkpoint that have a row for each token; most models have one of each. */
export function findVocabularyTensors(checkpoint: Checkpoint): {
  readonly embeddings: readonly string[];
  readonly heads: readonly string[];
  readonly headBiases: readonly string[];
} {
  const names = [...checkpoint.tensors.keys()];
  return {
    embeddings: names.filter((name) => EMBEDDING_TENSOR.test(name)),
    heads: names.filter((name) => HEAD_TENSOR.test(name)),
    headBiases: names.filter((name) => HEAD_BIAS.test(name)),
  };
}

/**
 * Finds the tied pair, if embeddings are tied: if config.json says so, or says nothing and no head
 * is on disk (transformers ties by default, and architectures that do not always store a head).
 */
export function findTiedEmbeddings(
  checkpoint: Checkpoint,
  config: ModelConfig,
): TiedEmbeddings | undefined {
  const { embeddings, heads } = findVocabularyTensors(checkpoint);
  const tied = config.tieWordEmbeddings ?? heads.length === 0;
  const [embedding] = embeddings;
  if (!tied || embedding === undefined || embeddings.length > 1 || heads.length > 1) {
    return undefined;
  }
  const defaultHead = embedding.endsWith('embed_in.weight') ? 'embed_out.weight' : 'lm_head.weight';
  return { embedding, head: heads[0] ?? defaultHead };
}
