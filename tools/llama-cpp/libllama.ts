import { createRequire } from 'node:module';
import { join } from 'node:path';
import { libraryFile } from './library-file.ts';

/** The release whose structs are declared here. They change from one to the next. */
export const LIBLLAMA_VERSION = '0.4.0';

/** An address in native memory. */
export type Pointer = bigint | null;

type NativeFunction = (...args: unknown[]) => unknown;

/** What is used of koffi (https://koffi.dev), which comes with llama.cpp's packages, not with ours. */
export interface Koffi {
  load(path: string, options?: { global?: boolean }): Library;
  struct(name: string, members: Record<string, string>): unknown;
  alloc(type: string, length: number): Pointer;
  /** Native memory itself, without a copy: invalid once its owner frees it. */
  view(pointer: Pointer, bytes: number): ArrayBuffer;
}

interface Library {
  func(definition: string): NativeFunction;
}

/** The functions of libllama that a model is run with; see `include/llama.h` of the release. */
export interface LibLlama {
  readonly koffi: Koffi;
  readonly call: Readonly<Record<(typeof FUNCTIONS)[number], NativeFunction>>;
}

const FUNCTIONS = [
  'llama_backend_init',
  'llama_model_default_params',
  'llama_context_default_params',
  'llama_model_load_from_file',
  'llama_model_get_vocab',
  'llama_model_has_encoder',
  'llama_model_has_decoder',
  'llama_model_n_ctx_train',
  'llama_vocab_n_tokens',
  'llama_vocab_is_eog',
  'llama_adapter_lora_init',
  'llama_init_from_model',
  'llama_set_adapters_lora',
  'llama_free',
  'llama_get_memory',
  'llama_memory_clear',
  'llama_tokenize',
  'llama_token_to_piece',
  'llama_decode',
  'llama_get_logits',
] as const;

const DECLARATIONS: Readonly<Record<(typeof FUNCTIONS)[number], string>> = {
  llama_backend_init: 'void llama_backend_init()',
  llama_model_default_params: 'llama_model_params llama_model_default_params()',
  llama_context_default_params: 'llama_context_params llama_context_default_params()',
  llama_model_load_from_file:
    'void *llama_model_load_from_file(const char *path, llama_model_params params)',
  llama_model_get_vocab: 'void *llama_model_get_vocab(void *model)',
  llama_model_has_encoder: 'bool llama_model_has_encoder(void *model)',
  llama_model_has_decoder: 'bool llama_model_has_decoder(void *model)',
  llama_model_n_ctx_train: 'int32_t llama_model_n_ctx_train(void *model)',
  llama_vocab_n_tokens: 'int32_t llama_vocab_n_tokens(void *vocab)',
  llama_vocab_is_eog: 'bool llama_vocab_is_eog(void *vocab, int32_t token)',
  llama_adapter_lora_init: 'void *llama_adapter_lora_init(void *model, const char *path)',
  llama_init_from_model: 'void *llama_init_from_model(void *model, llama_context_params params)',
  llama_set_adapters_lora:
    'int32_t llama_set_adapters_lora(void *context, void *adapters, size_t count, float *scales)',
  llama_free: 'void llama_free(void *context)',
  llama_get_memory: 'void *llama_get_memory(void *context)',
  llama_memory_clear: 'void llama_memory_clear(void *memory, bool data)',
  llama_tokenize:
    'int32_t llama_tokenize(void *vocab, const uint8_t *text, int32_t length, int32_t *tokens, int32_t tokensMax, bool addSpecial, bool parseSpecial)',
  llama_token_to_piece:
    'int32_t llama_token_to_piece(void *vocab, int32_t token, uint8_t *bytes, int32_t length, int32_t strip, bool special)',
  llama_decode: 'int32_t llama_decode(void *context, llama_batch batch)',
  llama_get_logits: 'void *llama_get_logits(void *context)',
};

/** Members in the order of `struct llama_model_params`. */
const MODEL_PARAMS = {
  devices: 'void *',
  tensor_buft_overrides: 'void *',
  n_gpu_layers: 'int32_t',
  split_mode: 'int32_t',
  load_mode: 'int32_t',
  lazy_mode: 'int32_t',
  main_gpu: 'int32_t',
  tensor_split: 'void *',
  progress_callback: 'void *',
  progress_callback_user_data: 'void *',
  kv_overrides: 'void *',
  vocab_only: 'bool',
  check_tensors: 'bool',
  use_extra_bufts: 'bool',
  no_host: 'bool',
  no_alloc: 'bool',
  load_mtp: 'bool',
};

/** Members in the order of `struct llama_context_params`. */
const CONTEXT_PARAMS = {
  n_ctx: 'uint32_t',
  n_batch: 'uint32_t',
  n_ubatch: 'uint32_t',
  n_seq_max: 'uint32_t',
  n_rs_seq: 'uint32_t',
  n_outputs_max: 'uint32_t',
  n_outputs_max_per_seq: 'uint32_t',
  n_threads: 'int32_t',
  n_threads_batch: 'int32_t',
  ctx_type: 'int32_t',
  rope_scaling_type: 'int32_t',
  pooling_type: 'int32_t',
  attention_type: 'int32_t',
  flash_attn_type: 'int32_t',
  rope_freq_base: 'float',
  rope_freq_scale: 'float',
  yarn_ext_factor: 'float',
  yarn_attn_factor: 'float',
  yarn_beta_fast: 'float',
  yarn_beta_slow: 'float',
  yarn_orig_ctx: 'uint32_t',
  defrag_thold: 'float',
  cb_eval: 'void *',
  cb_eval_user_data: 'void *',
  type_k: 'int32_t',
  type_v: 'int32_t',
  abort_callback: 'void *',
  abort_callback_data: 'void *',
  embeddings: 'bool',
  offload_kqv: 'bool',
  no_perf: 'bool',
  op_offload: 'bool',
  swa_full: 'bool',
  kv_unified: 'bool',
  samplers: 'void *',
  n_samplers: 'size_t',
  ctx_other: 'void *',
};

/** What the release gives by default, first members and last: shows that the structs are declared right. */
const MODEL_DEFAULTS = { n_gpu_layers: -1, load_mode: -1, use_extra_bufts: true, load_mtp: false };
const CONTEXT_DEFAULTS = {
  n_ctx: 512,
  n_batch: 2048,
  yarn_beta_slow: -1,
  type_k: 1,
  swa_full: true,
};

/**
 * Loads llama.cpp's library into this process, which must be one that may crash: native code aborts
 * where it meets what it did not expect.
 *
 * By FFI, because node-llama-cpp, whose package the library is from, tells neither logits nor
 * probabilities of more tokens than its sampler leaves.
 *
 * @param modules where `koffi` resolves from
 * @param libraries the directory of the shared libraries
 * @throws Error when they are of another release than the structs here
 */
export function openLibLlama(modules: string, libraries: string): LibLlama {
  const koffi = createRequire(join(modules, 'package.json'))('koffi') as Koffi;
  const load = (name: string): Library =>
    koffi.load(libraryFile(libraries, name), { global: true });
  load('ggml-base');
  const ggml = load('ggml');
  const llama = load('llama');

  const version = String(llama.func('const char *llama_version()')());
  if (!version.startsWith(`${LIBLLAMA_VERSION}-`) && version !== LIBLLAMA_VERSION) {
    throw new Error(
      `The library in ${libraries} is llama.cpp ${version}, not ${LIBLLAMA_VERSION}.`,
    );
  }
  koffi.struct('llama_model_params', MODEL_PARAMS);
  koffi.struct('llama_context_params', CONTEXT_PARAMS);
  koffi.struct('llama_batch', {
    n_tokens: 'int32_t',
    token: 'void *',
    embd: 'void *',
    pos: 'void *',
    n_seq_id: 'void *',
    seq_id: 'void *',
    logits: 'void *',
  });
  const call = Object.fromEntries(
    FUNCTIONS.map((name) => [name, llama.func(DECLARATIONS[name])]),
  ) as LibLlama['call'];
  expectDefaults(call.llama_model_default_params(), MODEL_DEFAULTS);
  expectDefaults(call.llama_context_default_params(), CONTEXT_DEFAULTS);
  ggml.func('void ggml_backend_load_all_from_path(const char *directory)')(libraries);
  call.llama_backend_init();
  return { koffi, call };
}

function expectDefaults(params: unknown, expected: Readonly<Record<string, unknown>>): void {
  const given = params as Record<string, unknown>;
  const wrong = Object.keys(expected).filter((key) => given[key] !== expected[key]);
  if (wrong.length === 0) return;
  throw new Error(
    `The library's structs are not those of llama.cpp ${LIBLLAMA_VERSION}: ${wrong}.`,
  );
}
