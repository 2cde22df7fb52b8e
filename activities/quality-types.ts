import type { Recipe } from '../config/recipe.ts';
import type { ConversionStep } from '../conversion/conversion-step.ts';
import type { Verification } from '../engine/verify/verify-merge.ts';
import type { CandidateStep } from '../evaluation/candidate.ts';
import type {
  Publication,
  ReleaseContext,
  ResolvedInputs,
  Roots,
  RunIdentity,
  SealedMerge,
} from './types.ts';

/** What is made of a merged checkpoint and how it is judged. Small: a history holds it. */

/** The conversions and evaluations of a release, planned before a weight is read. */
export interface QualityPlan {
  readonly conversions: readonly ConversionStep[];
  readonly candidates: readonly CandidateStep[];
  readonly warnings: readonly string[];
  /** SHA-256 of the file with the suites as they were at the start; absent without an evaluation. */
  readonly suites?: string;
}

/** What the activities after the merge are told. */
export interface MergedContext extends ReleaseContext {
  readonly inputs: ResolvedInputs;
  readonly planDigest: string;
  readonly sealed: SealedMerge;
  readonly roots: Roots;
}

/** A finished conversion. */
export interface Converted {
  readonly id: string;
  readonly directory: string;
  /** SHA-256 of its manifest, which holds the digests of its files. */
  readonly manifestDigest: string;
}

export interface ConvertInput extends MergedContext {
  readonly step: ConversionStep;
  /** Directory of the conversion that it is made from, if it is made from one. */
  readonly source?: Converted | undefined;
}

export interface EvaluateInput extends MergedContext {
  readonly candidate: CandidateStep;
  /** The conversion that is evaluated, if it is one. */
  readonly converted?: Converted | undefined;
  /** The candidates that it is compared with. */
  readonly references: readonly Evaluated[];
  /** `QualityPlan.suites` */
  readonly suites?: string | undefined;
}

/** The results of one candidate: where they are and what they come to. */
export interface Evaluated {
  readonly candidate: string;
  /** Of the files that were evaluated. */
  readonly digest: string;
  /** SHA-256 of the file with the results, which names it. */
  readonly results: string;
}

export interface JudgeInput extends MergedContext {
  readonly plan: QualityPlan;
  readonly evaluated: readonly Evaluated[];
}

/** The gate's decision, for the workflow: who passed, and why others did not. */
export interface Judged {
  /** SHA-256 of the file with the decision. */
  readonly decision: string;
  readonly passed: readonly string[];
  readonly failed: readonly { readonly id: string; readonly message: string }[];
  readonly warnings: readonly string[];
}

/** A person's word on a release that waited for it. */
export interface Approval {
  /** Who, as they call themselves. */
  readonly by: string;
  /** Why what the gate refused is released all the same. */
  readonly override?: string;
  /** ISO 8601, UTC. */
  readonly at: string;
}

/** What the last stages know of the quality of a release; absent where a recipe asks for none. */
export interface QualityFacts {
  readonly plan: QualityPlan;
  readonly converted: readonly Converted[];
  readonly evaluated: readonly Evaluated[];
  readonly decision?: string | undefined;
  readonly approval?: Approval | undefined;
}

/** The parts of a release that are published on their own: `merged`, or the id of a conversion. */
export type PartId = string;

/** What publish and report are told. */
export interface ReleaseParts extends ReleaseContext {
  readonly inputs: ResolvedInputs;
  readonly planDigest: string;
  readonly sealed: SealedMerge;
  readonly verification: Verification;
  readonly run: RunIdentity;
  readonly quality?: QualityFacts | undefined;
  /** Where the inputs are; absent, as the stages, in runs of earlier versions. */
  readonly roots?: Roots;
  /** How long each stage took so far. */
  readonly stages?: readonly StageTimes[];
}

export interface PublishInput extends ReleaseParts {
  /** Index of the target in the recipe. */
  readonly target: number;
  /** Absent for the merged checkpoint, as in recipes without conversions. */
  readonly part?: PartId | undefined;
  /** Where this part was published already, for targets that point at others. */
  readonly publishedAt?: readonly Publication[];
}

export interface MoveAliasesInput {
  readonly recipe: Recipe;
  /** `ResolvedInputs.artefact` */
  readonly release: string;
  /** Index of the target in the recipe. */
  readonly target: number;
  readonly part?: PartId | undefined;
  /** `RunIdentity.startedAt`: what an earlier run published moves no alias that points elsewhere. */
  readonly startedAt: string;
}

/** An alias that a release moved to itself. */
export interface MovedAlias {
  readonly alias: string;
  /** The target, as its publisher names it. */
  readonly target: string;
  /** Id of a conversion; absent for the merged checkpoint. */
  readonly part?: string;
}

export interface MovedAliases {
  readonly moved: readonly MovedAlias[];
  readonly warnings: readonly string[];
}

/** When a stage ran, in milliseconds since the epoch, workflow time. */
export interface StageTimes {
  readonly stage: string;
  readonly startedAtMs?: number;
  readonly finishedAtMs?: number;
}

export interface ReportInput extends ReleaseParts {
  readonly publications: readonly Publication[];
}
