import type { TinyModel } from './tiny-model.ts';
import { concatenate, type TestTensor } from './write-safetensors.ts';

/** Tensors one behind the other along their rows. */
export function inOne(
  name: string,
  parts: readonly TestTensor[],
  shape: readonly number[],
): TestTensor {
  return { ...parts[0]!, name, shape, data: concatenate(...parts.map(({ data }) => data)) };
}

/** The tiny Llama's projections, fused as a Phi-3 has them. */
export function fuseProjections(model: TinyModel): TinyModel {
  const named = new Map(model.tensors.map((tensor) => [tensor.name, tensor]));
  const tensors = model.tensors.flatMap((tensor): TestTensor[] => {
    const fused = (names: readonly string[], to: string): TestTensor => {
      const parts = names.map((name) => named.get(tensor.name.replace(names[0]!, name))!);
      const rows = parts.reduce((sum, { shape }) => sum + shape[0]!, 0);
      return inOne(tensor.name.replace(names[0]!, to), parts, [rows, tensor.shape[1]!]);
    };
    if (/[kv]_proj|up_proj/.test(tensor.name)) return [];
    if (tensor.name.includes('q_proj')) return [fused(['q_proj', 'k_proj', 'v_proj'], 'qkv_proj')];
    if (tensor.name.includes('gate_proj')) return [fused(['gate_proj', 'up_proj'], 'gate_up_proj')];
    return [tensor];
  });
  const heads = { hidden_size: 64, num_attention_heads: 4, num_key_value_heads: 2 };
  return { ...model, tensors, config: { ...model.config, ...heads, model_type: 'phi3' } };
}
