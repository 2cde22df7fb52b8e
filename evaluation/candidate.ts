import type { ConversionStep } from '../conversion/conversion-step.ts';

/**
 * One model that is evaluated. Ids: `base` (alone, to show that the fine-tune is there at all),
 * `adapter:<id>` (the adapter on its base: the reference), `merged`, or the id of a conversion.
 */
export interface CandidateStep {
  readonly id: string;
  readonly kind: 'base' | 'adapter' | 'merged' | ConversionStep['kind'];
  readonly runner: 'transformers' | 'llama.cpp' | 'endpoint';
  /** The conversion it is; its files must be there first. */
  readonly conversion?: string;
  /** Candidate whose distributions (same runner) it is compared with; evaluated before it. */
  readonly comparedWith?: string;
  /**
   * The same where suites are about several adapters: by suite, since each is compared with its own
   * adapter. Instead of `comparedWith`; see `referenceFor`.
   */
  readonly comparedWithBySuite?: Readonly<Record<string, string>>;
  /** Suites on which others are compared with it: its distributions on them are kept. */
  readonly referenceOf?: readonly string[];
  /** Suites it is asked, by id. */
  readonly suites: readonly string[];
}

/** The candidate whose distributions on a suite `step`'s are compared with, if any. */
export function referenceFor(step: CandidateStep, suite: string): string | undefined {
  return step.comparedWithBySuite?.[suite] ?? step.comparedWith;
}
