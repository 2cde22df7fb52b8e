/**
 * The port behind which models are run. Implementations: transformers with PEFT, llama.cpp, and any
 * OpenAI-compatible endpoint; one conformance suite holds all of them (test/conformance/runner.ts).
 */
export interface Runner {
  /**
   * What decides its answers beside the model, for cache keys: `transformers 5.17.0, torch 2.11.0`.
   * Says `bfloat16` where that is the arithmetic: the gate allows for its rounding.
   */
  readonly identity: string;
  /** Positions that the model was made for (`max_position_embeddings`), if the runner knows. */
  readonly contextTokens?: number;

  /**
   * Continues prompts, greedily, each on its own.
   *
   * Answers come in any order, each as soon as it is known, so that what was answered survives a
   * crash. Rejects with `evaluate.runner-failed`, or the reason of `signal`.
   */
  answer(requests: readonly AnswerRequest[], signal: AbortSignal): AsyncIterable<Answer>;

  /**
   * The model's distributions over its whole vocabulary at given positions of texts, or undefined
   * where the runner cannot tell (an endpoint).
   *
   * @returns for each request float32 logits, or log-probabilities where `areLogProbabilities`,
   *   `[positions, vocabulary]`: row p belongs to the token that follows token `from + p`
   */
  distributions?(
    requests: readonly DistributionRequest[],
    signal: AbortSignal,
  ): AsyncIterable<Distributions>;

  /** Stops the model's process and waits until it is gone. Idempotent. */
  close(): Promise<void>;
}

export interface AnswerRequest {
  readonly index: number;
  readonly prompt: string;
  readonly addSpecialTokens: boolean;
  readonly newTokensMax: number;
}

export interface Answer {
  readonly index: number;
  /** What follows the prompt, without special tokens, leading spaces kept. */
  readonly text: string;
  /** How many tokens the prompt was, if the runner tells. */
  readonly promptTokens?: number;
}

export interface DistributionRequest {
  readonly index: number;
  readonly text: string;
  readonly addSpecialTokens: boolean;
  /** Only the last so many positions; all where absent. */
  readonly positionsMax?: number;
}

export interface Distributions {
  readonly index: number;
  /** Ids of the whole text's tokens. */
  readonly tokens: Int32Array;
  /** Index of the token that the first row follows. */
  readonly from: number;
  readonly vocabulary: number;
  /** `[positions, vocabulary]`, row-major. */
  readonly values: Float32Array;
  readonly areLogProbabilities: boolean;
}
