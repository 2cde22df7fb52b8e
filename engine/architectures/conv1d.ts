/**
 * Modules that transformers implements as `Conv1D`, whose weight is stored [in, out], by
 * `model_type`. PEFT goes by the layer's class and corrects a wrong `fan_in_fan_out` flag; without
 * model classes, this table says the same. Source: the modeling files that use `Conv1D`.
 */
const CONV1D_MODULES_BY_MODEL_TYPE: ReadonlyMap<string, ReadonlySet<string>> = new Map([
  ['gpt2', new Set(['c_attn', 'c_proj', 'c_fc', 'q_attn'])],
  ['openai-gpt', new Set(['c_attn', 'c_proj', 'c_fc'])],
  ['imagegpt', new Set(['c_attn', 'c_proj', 'c_fc', 'q_attn'])],
  ['decision_transformer', new Set(['c_attn', 'c_proj', 'c_fc', 'q_attn'])],
]);

/**
 * Whether a module's weight is stored transposed, where the architecture settles it.
 * @param module path, for example `transformer.h.0.attn.c_attn`
 * @returns undefined for an architecture that is not in the table
 */
export function isConv1d(modelType: string | undefined, module: string): boolean | undefined {
  const modules = CONV1D_MODULES_BY_MODEL_TYPE.get(modelType ?? '');
  return modules?.has(module.slice(module.lastIndexOf('.') + 1));
}
