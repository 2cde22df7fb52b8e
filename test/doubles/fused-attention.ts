import { alter, type TinyModel, tinyBase } from './tiny-model.ts';
import { concatenate } from './write-safetensors.ts';

/** A tiny Phi-3: the queries, keys and values of `tinyBase` in one layer. */
export function fusedAttention(): TinyModel {
  const base = tinyBase();
  for (const layer of [0, 1]) {
    const stem = `model.layers.${layer}.self_attn`;
    const parts = ['q_proj', 'k_proj', 'v_proj'].map((part) => `${stem}.${part}.weight`);
    const data = parts.map((name) => base.tensors.find((each) => each.name === name)!.data);
    for (const name of parts) alter(base, name);
    const fused = { name: `${stem}.qkv_proj.weight`, shape: [128, 64], data: concatenate(...data) };
    base.tensors.push({ ...fused, dtype: 'BF16' });
  }
  const heads = { hidden_size: 64, num_attention_heads: 4, num_key_value_heads: 2 };
  base.config = { ...base.config, model_type: 'phi3', ...heads };
  return base;
}
