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
  /** Suites it is asked, by id. */
  readonly suites: readonly string[];
}
