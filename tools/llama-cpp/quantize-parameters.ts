/** Members of `llama_model_quantize_params` (llama.h, release v0.4.0), as koffi declares them. */
export const QUANTIZE_PARAMETERS = {
  nthread: 'int32_t',
  ftype: 'int32_t',
  output_tensor_type: 'int32_t',
  token_embedding_type: 'int32_t',
  allow_requantize: 'bool',
  quantize_output_tensor: 'bool',
  only_copy: 'bool',
  pure: 'bool',
  keep_split: 'bool',
  dry_run: 'bool',
  imatrix: 'void *',
  kv_overrides: 'void *',
  tt_overrides: 'void *',
  prune_layers: 'void *',
  max_buf_size: 'size_t',
} as const;

/** Its size in bytes. The struct changes between releases: another size is another struct. */
export const QUANTIZE_PARAMETERS_BYTES = 64;
