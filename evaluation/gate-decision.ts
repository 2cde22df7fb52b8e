/** The gate's verdict on a release. Plain JSON, byte-stable. */
export interface GateDecision {
  readonly format: 'weldline.gate';
  /** One for each artefact that would be published: `merged`, and conversions by their ids. */
  readonly artefacts: readonly ArtefactDecision[];
}

export interface ArtefactDecision {
  readonly candidate: string;
  readonly passed: boolean;
  /** What was wrong, most serious first; empty where it passed. */
  readonly failures: readonly GateSignal[];
  /** What a person should know all the same. */
  readonly warnings: readonly GateSignal[];
  readonly suites: readonly SuiteDecision[];
}

/** A named reason. */
export interface GateSignal {
  readonly signal: GateSignalName;
  /** Suite that shows it; absent where it is about the artefact as a whole. */
  readonly suite?: string;
  /** One sentence for a person, with the figures. */
  readonly message: string;
}

export const GATE_SIGNALS = [
  'score-drop',
  'score-below-minimum',
  'kl-too-large',
  'distributions-differ',
  'fine-tune-absent',
  'perplexity-rise',
  'tokenized-differently',
  'held-back-with-merged',
  'not-evaluated',
  'suite-too-small',
] as const;

export type GateSignalName = (typeof GATE_SIGNALS)[number];

export interface SuiteDecision {
  readonly suite: string;
  /** Candidate that it is compared with. */
  readonly reference: string;
  readonly prompts: number;
  /** Shares of correct answers, 0 to 1, with 95 % intervals; absent for a suite of text only. */
  readonly score?: Interval;
  readonly referenceScore?: Interval;
  readonly baseScore?: Interval;
  /** referenceScore − score, paired over prompts. */
  readonly drop?: Interval;
  /** The smallest drop that this suite could have told from chance (95 % confidence, 80 % power). */
  readonly smallestDropSeen?: number;
  readonly kl?: number;
  readonly klMax?: number;
}

export interface Interval {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}
