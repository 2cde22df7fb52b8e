import { availableParallelism } from 'node:os';
import { type LibLlama, openLibLlama, type Pointer } from './libllama.ts';

/** Tokens that go through the model together; llama.cpp's own default. */
const BATCH_TOKENS = 512;
const CONTEXT_TOKENS_MIN = 512;
/** A vocabulary's longest pieces have some hundred bytes. */
const PIECE_BYTES = 512;

export interface LlamaModelOptions {
  /** Where `koffi` resolves from. */
  readonly modules: string;
  /** Directory of the shared libraries. */
  readonly libraries: string;
  /** GGUF file; the first part of one that was split. */
  readonly model: string;
  /** LoRA adapter as GGUF, applied at its own scale. */
  readonly adapter?: string;
  /** Half of the processors by default; see `threadsByDefault`. */
  readonly threads?: number;
}

/** One GGUF model in this process, for one caller at a time. */
export interface LlamaModel {
  /** Logits of one position. */
  readonly vocabulary: number;
  /** Positions that the model was made for. */
  readonly contextTokens: number;
  /** Special tokens in the text are understood; the model's own BOS comes first if asked for. */
  tokenize(text: string, addSpecialTokens: boolean): Int32Array;
  /** The bytes of a token, leading space kept; none for special tokens. */
  piece(token: number): Uint8Array;
  endsGeneration(token: number): boolean;
  /** Starts a new text, which may become as long as this, and of which so much is asked at once. */
  begin(tokensMax: number, outputs: 'last' | 'every'): void;
  /**
   * Evaluates the next tokens of the text, in batches.
   *
   * @param outputsMax how many of the last tokens' logits are wanted
   * @yields after each batch float32 logits `[wanted, vocabulary]`, in native memory: gone with the
   *   next batch
   */
  evaluate(tokens: Int32Array, outputsMax: number): Generator<Float32Array>;
}

/**
 * Loads a model. On the processor, which is what all machines have; its arithmetic and the 16-bit
 * cache of keys and values are those that llama.cpp's own programs have by default.
 *
 * @throws Error that says what cannot be loaded; why is in what llama.cpp prints before
 */
export function loadLlamaModel(options: LlamaModelOptions): LlamaModel {
  const lib = openLibLlama(options.modules, options.libraries);
  const { call } = lib;
  const params = call.llama_model_default_params() as object;
  const model = call.llama_model_load_from_file(options.model, { ...params, n_gpu_layers: 0 });
  if (model === null) throw new Error(`llama.cpp cannot load ${options.model}.`);
  if (call.llama_model_has_encoder(model) || !call.llama_model_has_decoder(model)) {
    throw new Error(`${options.model} is no decoder-only model; only those can be evaluated.`);
  }
  const adapter =
    options.adapter === undefined ? null : call.llama_adapter_lora_init(model, options.adapter);
  if (options.adapter !== undefined && adapter === null) {
    throw new Error(`llama.cpp cannot apply ${options.adapter} to ${options.model}.`);
  }
  const vocab = call.llama_model_get_vocab(model);
  const vocabulary = Number(call.llama_vocab_n_tokens(vocab));
  const context = new Context(lib, model, adapter, options.threads ?? threadsByDefault());
  return {
    vocabulary,
    contextTokens: Number(call.llama_model_n_ctx_train(model)),
    tokenize: (text, addSpecialTokens) => tokenize(lib, vocab, text, addSpecialTokens),
    piece: (token) => piece(lib, vocab, token),
    endsGeneration: (token) => Boolean(call.llama_vocab_is_eog(vocab, token)),
    begin: (tokensMax, outputs) => context.begin(tokensMax, outputs),
    evaluate: (tokens, outputsMax) => context.evaluate(tokens, outputsMax, vocabulary),
  };
}

/**
 * The cores behind processors that share one, as llama.cpp's programs take. Its threads wait for each
 * other by spinning: with one for each of two busy processors the example took 10 to 40 times as
 * long as with one thread.
 */
function threadsByDefault(): number {
  return Math.max(1, Math.floor(availableParallelism() / 2));
}

function tokenize(
  { call }: LibLlama,
  vocab: unknown,
  text: string,
  addSpecialTokens: boolean,
): Int32Array {
  const bytes = new TextEncoder().encode(text);
  // No token is shorter than a byte, but for those that are added: a prefix and special ones.
  const tokens = new Int32Array(bytes.length + 16);
  const count = Number(
    call.llama_tokenize(vocab, bytes, bytes.length, tokens, tokens.length, addSpecialTokens, true),
  );
  if (count < 0) throw new Error(`llama.cpp cannot tokenize a text of ${bytes.length} bytes.`);
  return tokens.slice(0, count);
}

function piece({ call }: LibLlama, vocab: unknown, token: number): Uint8Array {
  const bytes = new Uint8Array(PIECE_BYTES);
  const length = Number(call.llama_token_to_piece(vocab, token, bytes, bytes.length, 0, false));
  if (length >= 0) return bytes.subarray(0, length);
  const longer = new Uint8Array(-length);
  call.llama_token_to_piece(vocab, token, longer, longer.length, 0, false);
  return longer;
}

/** llama.cpp's context: the text so far. Made anew where a text needs one of another size. */
class Context {
  readonly #lib: LibLlama;
  readonly #model: unknown;
  readonly #adapter: unknown;
  readonly #threads: number;
  readonly #tokens: { readonly pointer: Pointer; readonly values: Int32Array };
  readonly #wanted: { readonly pointer: Pointer; readonly values: Int8Array };
  #context: unknown = null;
  #tokensMax = 0;
  #outputsMax = 0;

  constructor(lib: LibLlama, model: unknown, adapter: unknown, threads: number) {
    this.#lib = lib;
    this.#model = model;
    this.#adapter = adapter;
    this.#threads = threads;
    const tokens = lib.koffi.alloc('int32_t', BATCH_TOKENS);
    const wanted = lib.koffi.alloc('int8_t', BATCH_TOKENS);
    this.#tokens = {
      pointer: tokens,
      values: new Int32Array(lib.koffi.view(tokens, BATCH_TOKENS * 4)),
    };
    this.#wanted = { pointer: wanted, values: new Int8Array(lib.koffi.view(wanted, BATCH_TOKENS)) };
  }

  begin(textTokensMax: number, outputs: 'last' | 'every'): void {
    // A function of this text alone: some models (LongRoPE) compute differently in a larger context.
    let tokensMax = CONTEXT_TOKENS_MIN;
    while (tokensMax < textTokensMax) tokensMax *= 2;
    const outputsMax = outputs === 'last' ? 1 : BATCH_TOKENS;
    if (tokensMax !== this.#tokensMax || outputsMax !== this.#outputsMax) {
      this.#create(tokensMax, outputsMax);
    }
    const { call } = this.#lib;
    call.llama_memory_clear(call.llama_get_memory(this.#context), true);
  }

  #create(tokensMax: number, outputsMax: number): void {
    const { call } = this.#lib;
    if (this.#context !== null) call.llama_free(this.#context);
    this.#context = call.llama_init_from_model(this.#model, {
      ...(call.llama_context_default_params() as object),
      n_ctx: tokensMax,
      n_batch: BATCH_TOKENS,
      n_ubatch: BATCH_TOKENS,
      // Memory is reserved for so many rows of logits.
      n_outputs_max: outputsMax,
      n_outputs_max_per_seq: outputsMax,
      n_threads: this.#threads,
      n_threads_batch: this.#threads,
    });
    if (this.#context === null) {
      throw new Error(`llama.cpp has no memory for a context of ${tokensMax} tokens.`);
    }
    this.#tokensMax = tokensMax;
    this.#outputsMax = outputsMax;
    if (this.#adapter === null) return;
    const adapters = new BigUint64Array([this.#adapter as bigint]);
    const code = call.llama_set_adapters_lora(this.#context, adapters, 1, new Float32Array([1]));
    if (code !== 0) throw new Error('llama.cpp does not accept the adapter.');
  }

  *evaluate(tokens: Int32Array, outputsMax: number, vocabulary: number): Generator<Float32Array> {
    const { call, koffi } = this.#lib;
    for (let start = 0; start < tokens.length; start += BATCH_TOKENS) {
      const batch = tokens.subarray(start, start + BATCH_TOKENS);
      const unwanted = Math.max(0, tokens.length - outputsMax - start);
      const rows = Math.max(0, batch.length - unwanted);
      this.#tokens.values.set(batch);
      this.#wanted.values.fill(0).fill(1, unwanted, batch.length);
      // Without positions and sequences they follow what is there already.
      const code = call.llama_decode(this.#context, {
        n_tokens: batch.length,
        token: this.#tokens.pointer,
        embd: null,
        pos: null,
        n_seq_id: null,
        seq_id: null,
        logits: this.#wanted.pointer,
      });
      if (code !== 0) throw new Error(`llama.cpp failed to evaluate tokens (code ${code}).`);
      const logits = rows === 0 ? null : (call.llama_get_logits(this.#context) as Pointer);
      yield rows === 0
        ? new Float32Array(0)
        : new Float32Array(koffi.view(logits, rows * vocabulary * 4));
    }
  }
}
