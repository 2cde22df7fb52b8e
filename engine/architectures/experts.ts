/**
 * Mixtures of experts: what the parameters of a layer's experts are at run time (transformers 5 fuses
 * them, and PEFT's `target_parameters` train them so), and what they are called on disk.
 */
export interface ExpertLayout {
  /** Names of one expert's modules on disk, where each expert has its own. */
  readonly parts: Readonly<Record<ExpertPart, string>>;
  /**
   * Whether the fused parameters are [experts, out, in], gate before up; otherwise they are
   * [experts, in, out] or gate and up alternate, and only an adapter of the same shape fits.
   */
  readonly plain: boolean;
  /**
   * Which way round a LoRA on a square parameter belongs: for layers that PEFT knows to be
   * [in, out] it is always transposed; undefined if files of two layouts are in use.
   */
  readonly square: 'by-version' | 'transposed' | undefined;
}

export type ExpertPart = 'gate' | 'up' | 'down';

/** The fused parameters, and the parts of an expert that each holds along its outputs. */
export const EXPERT_PARAMETERS: ReadonlyMap<string, readonly ExpertPart[]> = new Map([
  ['gate_up_proj', ['gate', 'up'] as const],
  ['down_proj', ['down'] as const],
]);

const NAMED = { gate: 'gate_proj', up: 'up_proj', down: 'down_proj' };
const NUMBERED = { gate: 'w1', up: 'w3', down: 'w2' };

/** Like Qwen2-MoE: `mlp.experts.N.gate_proj` and its like on disk. */
const QWEN2_MOE: ExpertLayout = { parts: NAMED, plain: true, square: 'by-version' };
/** Like Mixtral: `experts.N.w1` and its like on disk. */
const MIXTRAL: ExpertLayout = { parts: NUMBERED, plain: true, square: 'by-version' };
/** Fused on disk, [experts, in, out], gate and up alternating, and PEFT knows it. */
const GPT_OSS: ExpertLayout = { parts: NAMED, plain: false, square: 'transposed' };
/** Fused on disk, and [experts, in, out] in some of the files. */
const EITHER: ExpertLayout = { parts: NAMED, plain: false, square: undefined };

/**
 * By `model_type`. Source: transformers 5.24, conversion_mapping.py (which converts the names on
 * disk to fused parameters) and the modeling files.
 */
const LAYOUTS: ReadonlyMap<string, ExpertLayout> = new Map([
  ...['mixtral', 'minimax', 'minimax_m2'].map((type) => [type, MIXTRAL] as const),
  ...['qwen2_moe', 'qwen3_moe', 'qwen3_next', 'qwen3_5_moe', 'qwen3_5_moe_text'].map(
    (type) => [type, QWEN2_MOE] as const,
  ),
  ...['deepseek_v2', 'deepseek_v3', 'dots1', 'glm4_moe', 'glm4_moe_lite'].map(
    (type) => [type, QWEN2_MOE] as const,
  ),
  ...['ernie4_5_moe', 'exaone_moe', 'flex_olmo', 'olmoe'].map((type) => [type, QWEN2_MOE] as const),
  ['gpt_oss', GPT_OSS],
  ...['llama4', 'llama4_text', 'qwen3_vl_moe', 'qwen3_vl_moe_text'].map(
    (type) => [type, EITHER] as const,
  ),
]);

/** @param modelTypes of the model and of its text part */
export function expertLayoutOf(modelTypes: readonly string[]): ExpertLayout | undefined {
  return modelTypes.map((type) => LAYOUTS.get(type)).find((layout) => layout !== undefined);
}

/** Names of a layer's mixture of experts: transformers 5 has one, files of Mixtral and its like another. */
const BLOCK_NAMES = ['.mlp.', '.block_sparse_moe.'] as const;

/** The same tensor under the other name that its mixture of experts may have. */
export function otherExpertsName(tensor: string): string | undefined {
  const [here, there] = tensor.includes(BLOCK_NAMES[0]) ? BLOCK_NAMES : BLOCK_NAMES.toReversed();
  const isInMixture = /\.(mlp|block_sparse_moe)\.(experts|gate)\./.test(tensor);
  return isInMixture ? tensor.replace(here as string, there as string) : undefined;
}
