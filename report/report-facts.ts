import type { RecipeSuite } from '../config/release-quality.ts';
import type { ConversionManifest, ConversionStep } from '../conversion/conversion-step.ts';
import type { TensorRetention } from '../engine/insight/retention.ts';
import type { CandidateStep } from '../evaluation/candidate.ts';
import type { GateDecision } from '../evaluation/gate-decision.ts';
import type { SuiteResult } from '../evaluation/results.ts';
import type { Suite } from '../evaluation/suite.ts';
import { type ChangedAnswers, changedAnswers } from './changed-answers.ts';
import type { ReleaseFacts } from './release-facts.ts';

/** Everything that the report shows. Plain JSON, bounded, and without paths of suites. */
export interface ReportFacts {
  readonly format: 'weldline.report';
  readonly release: ReleaseFacts;
  /** Of the tensors that were measured; empty where nothing was. */
  readonly tensors: readonly TensorRetention[];
  /** In the order of the recipe. */
  readonly conversions: readonly ReportConversion[];
  /** Absent where the recipe asks for no evaluation. */
  readonly evaluation?: ReportEvaluation;
  readonly approvalRequired: boolean;
  /** What a person said; absent as long as nobody has. */
  readonly approval?: Approval;
  readonly publications: readonly ReportPublication[];
  /** In the order in which they began. */
  readonly stages: readonly StageTime[];
}

export interface ReportConversion {
  readonly manifest: ConversionManifest;
  /** False for a file that only others are made of. */
  readonly isWanted: boolean;
}

export interface ReportEvaluation {
  /** What a failed gate does. */
  readonly onFailure: 'wait' | 'stop';
  readonly suites: readonly ReportSuite[];
  readonly candidates: readonly CandidateStep[];
  readonly results: readonly ReportResult[];
  readonly gate: GateDecision;
  /** Answers that became others, of artefacts beside their references. */
  readonly changes: readonly ChangedAnswers[];
}

export type ReportSuite = Pick<
  RecipeSuite,
  'id' | 'adapter' | 'matcher' | 'dropMax' | 'scoreMin' | 'klMax' | 'perplexityRiseMax'
>;

/** What a candidate did, without its answers. */
export type ReportResult = Omit<SuiteResult, 'answers'> & { readonly answered: number };

export interface Approval {
  /** Who it was, as they called themselves. */
  readonly by: string;
  /** Why an artefact that failed the gate ships all the same; absent where none had to. */
  readonly override?: string;
}

export interface ReportPublication {
  /** What was published: `merged` or a conversion's id; absent for the release as a whole. */
  readonly candidate?: string;
  readonly location: string;
  /** Whether the same release was there already. */
  readonly existed: boolean;
}

export interface StageTime {
  readonly stage: string;
  /** Milliseconds since the epoch. */
  readonly startedAtMs: number;
  /** Absent while it runs or waits. */
  readonly finishedAtMs?: number;
}

export interface ReportFactsInput {
  readonly release: ReleaseFacts;
  readonly tensors?: readonly TensorRetention[] | undefined;
  readonly conversions?: readonly {
    readonly step: ConversionStep;
    readonly manifest: ConversionManifest;
  }[];
  readonly evaluation?:
    | {
        readonly onFailure: 'wait' | 'stop';
        readonly suites: readonly RecipeSuite[];
        readonly candidates: readonly CandidateStep[];
        readonly results: readonly SuiteResult[];
        readonly gate: GateDecision;
        /** Suites with their prompts, for examples; without them answers stand alone. */
        readonly loaded?: readonly Suite[];
      }
    | undefined;
  readonly approvalRequired?: boolean;
  readonly approval?: Approval | undefined;
  readonly publications?: readonly ReportPublication[];
  /** Only those that have begun. */
  readonly stages?: readonly StageTime[];
}

/** Takes from what a release made what its report shows, in an order of its own. */
export function reportFacts(input: ReportFactsInput): ReportFacts {
  const { release, evaluation, approval } = input;
  return {
    format: 'weldline.report',
    release,
    // Over a weight of zero a size is infinite, which JSON has no word for.
    tensors: (input.tensors ?? []).filter((tensor) => Number.isFinite(tensor.relativeSize)),
    conversions: (input.conversions ?? []).map(({ step, manifest }) => ({
      manifest,
      isWanted: step.kind !== 'gguf' || step.wanted,
    })),
    ...(evaluation && { evaluation: evaluationFacts(evaluation) }),
    approvalRequired: input.approvalRequired ?? false,
    ...(approval && { approval }),
    publications: input.publications ?? [],
    stages: (input.stages ?? []).toSorted((one, other) => one.startedAtMs - other.startedAtMs),
  };
}

function evaluationFacts(
  given: NonNullable<ReportFactsInput['evaluation']>,
): NonNullable<ReportFacts['evaluation']> {
  const { onFailure, suites, candidates, gate } = given;
  const places = new Map(candidates.map(({ id }, index) => [id, index]));
  const suitePlaces = new Map(suites.map(({ id }, index) => [id, index]));
  const placeOf = (result: SuiteResult): number =>
    (suitePlaces.get(result.suite) ?? 0) * candidates.length + (places.get(result.candidate) ?? 0);
  const results = given.results.toSorted((one, other) => placeOf(one) - placeOf(other));
  return {
    onFailure,
    // Where they are on a disk is nobody's business.
    suites: suites.map(({ data: _, text: __, newTokensMax: ___, ...suite }) => suite),
    candidates,
    results: results.map(({ answers, ...result }) => ({ ...result, answered: answers.length })),
    gate,
    changes: changedAnswers(gate, results, given.loaded ?? []),
  };
}
