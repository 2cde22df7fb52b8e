import { parseJson } from '../json-text.ts';
import type { ModelConfig } from './model-config.ts';

/** Linear layers that some architectures have as one, in the order of its outputs. */
export interface FusedProjection {
  readonly fused: string;
  readonly parts: readonly string[];
}

/** What config.json says of the shape of attention, and of the model's kind. */
export interface Geometry {
  /** `model_type` of the model and of its text part. */
  readonly modelTypes: readonly string[];
  /** Rows of each part of a fused query, key and value; undefined if it does not say. */
  readonly qkvRows: readonly number[] | undefined;
}

const QKV: FusedProjection = { fused: 'qkv_proj', parts: ['q_proj', 'k_proj', 'v_proj'] };
const GATE_UP: FusedProjection = { fused: 'gate_up_proj', parts: ['gate_proj', 'up_proj'] };

/** Both spellings of a projection, by the path that leads to it in Llama and its like. */
export const PROJECTIONS: ReadonlyMap<string, FusedProjection> = new Map([
  ['self_attn', QKV],
  ['mlp', GATE_UP],
]);

/**
 * Architectures whose fused layers are their parts one behind the other, by `model_type`. Source: the
 * modeling files of transformers 5.24 that slice or `chunk` the outputs.
 */
const CONCATENATED: ReadonlyMap<string, readonly FusedProjection[]> = new Map([
  ['phi3', [QKV, GATE_UP]],
  ['phi4_multimodal', [QKV, GATE_UP]],
  ['glm', [GATE_UP]],
  ['glm4', [GATE_UP]],
]);

/** Names of fused layers whose parts alternate head by head, or may. */
export const INTERLEAVED = ['query_key_value', 'Wqkv', 'wqkv', 'W_pack', 'c_attn', 'qkv'];

/** Whether an architecture has this fused layer, its parts one behind the other. */
export function isConcatenated(modelTypes: readonly string[], fused: FusedProjection): boolean {
  return modelTypes.some((type) => CONCATENATED.get(type)?.includes(fused) === true);
}

export function geometryOf(config: ModelConfig): Geometry {
  const root = asObject(parseJson(config.text));
  const text = config.hasTextConfig ? asObject(root['text_config']) : root;
  const modelTypes = [config.modelType, text['model_type']].filter(
    (type) => typeof type === 'string',
  );
  const heads = toCount(text['num_attention_heads']);
  const hidden = toCount(text['hidden_size']);
  const keyHeads = toCount(text['num_key_value_heads'] ?? heads);
  const head = toCount(text['head_dim']) ?? (hidden && heads ? hidden / heads : undefined);
  const known = heads !== undefined && keyHeads !== undefined && head !== undefined;
  const qkvRows = known ? [heads * head, keyHeads * head, keyHeads * head] : undefined;
  return { modelTypes: [...new Set(modelTypes)], qkvRows };
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function toCount(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && (value as number) > 0 ? (value as number) : undefined;
}
