import type { Matcher } from '../config/release-quality.ts';

/** A suite as it is run: prompts rendered once, the same text for every candidate. */
export interface Suite {
  readonly id: string;
  /** SHA-256 over everything that decides answers and scores. */
  readonly digest: string;
  readonly exercises: readonly Exercise[];
  /** Text whose perplexity is measured. */
  readonly text?: string;
  readonly newTokensMax: number;
  /** What a person should know of it, such as prompts that are there twice. No part of the digest. */
  readonly warnings?: readonly string[];
}

export interface Exercise {
  /** Position in the file, from 0. */
  readonly index: number;
  /** What the model sees: the prompt as written, or messages through the chat template. */
  readonly prompt: string;
  /**
   * Whether the tokenizer adds its special tokens (BOS). True for prompts as written; false where a
   * chat template has put them in already.
   */
  readonly addSpecialTokens: boolean;
  readonly expected: string | readonly string[];
  readonly matcher: Matcher;
}
