/** What one candidate did on one suite. Plain JSON, kept in the workspace; no times: byte-stable. */
export interface SuiteResult {
  readonly candidate: string;
  readonly suite: string;
  readonly suiteDigest: string;
  /** `Runner.identity`. */
  readonly runner: string;
  /** Of the files that were evaluated. */
  readonly artefactDigest: string;
  /** Empty for a suite of text only. In the order of the suite. */
  readonly answers: readonly {
    readonly index: number;
    readonly text: string;
    readonly correct: boolean;
  }[];
  /** Share of correct answers, 0 to 1; absent without exercises. */
  readonly score?: number;
  readonly perplexity?: { readonly value: number; readonly tokens: number };
  /** Beside the candidate it is compared with. */
  readonly comparison?: DistributionComparison;
  /** Of a model that computes no numbers, which is a result too: what was found. */
  readonly notFinite?: string;
}

/** How far two models' next-token distributions are apart, over all compared positions. */
export interface DistributionComparison {
  /** Candidate that it was compared with. */
  readonly with: string;
  readonly positions: number;
  /** KL(reference ‖ candidate), nats per token. */
  readonly klMean: number;
  readonly klMax: number;
  /**
   * Largest difference of a logit; of log-probabilities where a runner tells only those, which
   * `ofLogProbabilities` says.
   */
  readonly logitDifferenceMax: number;
  readonly ofLogProbabilities: boolean;
  /** Share of positions whose most probable token is the same. */
  readonly top1Agreement: number;
  /** Texts that the two tokenise differently, by index: none of their positions is compared. */
  readonly tokenizedDifferently: readonly number[];
}
