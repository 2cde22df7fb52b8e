import type { ConversionManifest } from '../conversion/conversion-step.ts';
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

/** What `release.json` says of one artefact: the facts of its release, and what is its own. */
export interface ArtefactRecord {
  /** Name of the release; the artefact's is this and, for a conversion, its id behind it. */
  readonly release: string;
  readonly part?: string;
  readonly kind: 'merged' | ConversionManifest['kind'];
  /** SHA-256 of `weldline.json` or `conversion.json`. */
  readonly manifestDigest: string;
  /** Of a conversion; and the manifest of the merge that it was made of. */
  readonly conversion?: ConversionManifest;
  readonly merge?: Manifest;
  /** What else was made of the same merge; of the merged checkpoint only. */
  readonly conversions?: readonly {
    readonly id: string;
    readonly manifestDigest: string;
    readonly tools: ConversionManifest['tools'];
    readonly settings: ConversionManifest['settings'];
  }[];
  /** When each stage ran so far; ISO 8601, UTC. */
  readonly stages: readonly {
    readonly stage: string;
    readonly startedAt: string;
    readonly finishedAt?: string;
  }[];
  /** Every file of the artefact but this one and those that are made after it. */
  readonly contents: Manifest['files'];
}

/**
 * The text of `release.json`. What the manifest of a merge says of its tensors is left out of a
 * conversion's.
 */
export function formatRecord(facts: ReleaseFacts, record: ArtefactRecord): string {
  const { files, insight, tensors, verification, configEdits, rules, ...common } = facts;
  const ofMerge = { files, insight, tensors, verification, configEdits, rules };
  const { release, part } = record;
  const artefact = part === undefined ? release : `${release}-${part}`;
  const own = { ...common, ...(part === undefined ? ofMerge : {}), ...record, artefact };
  return `${JSON.stringify(own, null, 2)}\n`;
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
