/**
 * What llama.cpp calls the weights that most architectures have by the same names (gguf-py's
 * tensor_mapping.py). Only matrices: where norms sit differs, and with it what they are called.
 */
const OF_A_LAYER: Readonly<Record<string, string>> = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.qkv_proj': 'attn_qkv',
  'self_attn.o_proj': 'attn_output',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
};

const OF_THE_MODEL: Readonly<Record<string, string>> = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'lm_head.weight': 'output.weight',
};

const LAYER = /^model\.layers\.(\d+)\.(\w+\.\w+)\.weight$/;

/** @returns the name in GGUF; undefined where it is not the same for all architectures */
export function ggufTensorName(name: string): string | undefined {
  const [, layer, module = ''] = LAYER.exec(name) ?? [];
  if (layer === undefined) return OF_THE_MODEL[name];
  const known = OF_A_LAYER[module];
  return known === undefined ? undefined : `blk.${layer}.${known}.weight`;
}
