import type { InsightSummary } from '../engine/insight/measure-merge.ts';
import type { Manifest } from '../engine/manifest.ts';
import type { Provenance } from '../engine/seal.ts';
import type { Verification } from '../engine/verify/verify-merge.ts';
import type { GateDecision } from '../evaluation/gate-decision.ts';
import type { BaseCard } from './base-card.ts';

/** The workflow run that made a release. */
export interface ReleaseRun {
  readonly workflowId: string;
  readonly runId: string;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
}

/** What a release says of its recipe and its inputs, beyond the manifest of its merge. */
export interface ReleaseProvenance {
  readonly recipe: NonNullable<Manifest['recipe']>;
  readonly inputs: Provenance['inputs'];
}

/** Everything a release says about itself; `release.json` holds it, the model card shows it. */
export interface ReleaseFacts {
  readonly format: 'weldline.release';
  readonly name: string;
  readonly version: string;
  readonly artefact: string;
  readonly run: ReleaseRun;
  readonly engine: Manifest['engine'];
  readonly plan: string;
  /** SHA-256 of `weldline.json`, which holds the digests of all other files. */
  readonly manifestDigest: string;
  readonly recipe: ReleaseProvenance['recipe'];
  readonly inputs: Manifest['inputs'];
  readonly options: Manifest['options'];
  readonly rules: Manifest['rules'];
  readonly configEdits: Manifest['configEdits'];
  readonly tensors: Manifest['tensors'];
  readonly warnings: readonly string[];
  readonly nf4Distance?: Manifest['nf4Distance'];
  readonly verification: Verification;
  /** What was measured before the merge; absent if an earlier version planned it. */
  readonly insight?: Omit<InsightSummary, 'warnings'>;
  readonly files: Manifest['files'];
  /** What the base says of itself; absent if nobody read it. */
  readonly baseCard?: BaseCard;
  /** What the gate decided of each part; absent without evaluation. */
  readonly gate?: GateDecision;
  /** A person's word on it; absent where none was asked for. */
  readonly approval?: ReleaseApproval;
}

/** What a person said to a release that waited for them. */
export interface ReleaseApproval {
  readonly by: string;
  /** Why what the gate refused is published all the same. */
  readonly override?: string;
  /** ISO 8601, UTC. */
  readonly at: string;
}

export interface ReleaseFactsInput {
  readonly name: string;
  readonly version: string;
  readonly artefact: string;
  /** Of this release; the manifest may have been made for an earlier one of the same inputs. */
  readonly provenance: ReleaseProvenance;
  readonly manifest: Manifest;
  readonly manifestDigest: string;
  readonly verification: Verification;
  readonly insight?: InsightSummary | undefined;
  readonly run: ReleaseRun;
  readonly baseCard?: BaseCard | undefined;
  readonly gate?: GateDecision | undefined;
  readonly approval?: ReleaseApproval | undefined;
}

export function releaseFacts(input: ReleaseFactsInput): ReleaseFacts {
  const {
    manifest,
    provenance,
    verification,
    insight,
    run,
    name,
    version,
    artefact,
    manifestDigest,
  } = input;
  const { engine, plan, options, rules, configEdits, tensors, warnings, files } = manifest;
  return {
    format: 'weldline.release',
    name,
    version,
    artefact,
    run,
    engine,
    plan,
    manifestDigest,
    recipe: provenance.recipe,
    inputs: manifest.inputs.map((given) => ({ ...given, ...provenance.inputs[given.id] })),
    options,
    rules,
    configEdits,
    tensors,
    warnings: [...warnings, ...(insight?.warnings ?? [])],
    ...(manifest.nf4Distance && { nf4Distance: manifest.nf4Distance }),
    verification,
    ...(insight && { insight: { retention: insight.retention, conflicts: insight.conflicts } }),
    files,
    ...(input.baseCard && { baseCard: input.baseCard }),
    ...(input.gate && { gate: input.gate }),
    ...(input.approval && { approval: input.approval }),
  };
}
