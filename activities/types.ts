import type { Recipe } from '../config/recipe.ts';
import type { CompletedShard } from '../engine/merge/journal.ts';
import type { ResolvedModel } from '../sources/model-input.ts';

/** What every activity of one release is told. Holds no secrets: it is stored in the history. */
export interface ReleaseContext {
  readonly recipe: Recipe;
  readonly recipeDigest: string;
}

/** The inputs of a release, pinned. */
export interface ResolvedInputs {
  readonly base: ResolvedModel;
  readonly adapter: ResolvedModel;
  /** The adapters after the first; absent where there is one. */
  readonly otherAdapters?: readonly ResolvedModel[];
  /** `merged-<base>-<version>-adapter-<adapters>-<adapter version>`. */
  readonly artefact: string;
}

export interface Preflight {
  readonly warnings: readonly string[];
  readonly tensorsMerged: number;
  readonly downloadBytes: number;
  readonly outputBytes: number;
}

/** Directory of each input on the worker's disk, by its id. */
export type Roots = Readonly<Record<string, string>>;

export interface PlanReference {
  readonly digest: string;
  readonly shards: number;
  readonly bytesTotal: number;
  readonly tensorsTotal: number;
  readonly tensorsMerged: number;
  readonly warnings: readonly string[];
}

export interface MergeShardInput {
  readonly planDigest: string;
  /** Index of the shard in the plan. */
  readonly shard: number;
  readonly roots: Roots;
  readonly threads?: number | undefined;
  readonly memoryBudgetBytes?: number | undefined;
}

export interface SealInput extends ReleaseContext {
  readonly inputs: ResolvedInputs;
  readonly planDigest: string;
  readonly roots: Roots;
  readonly shards: readonly CompletedShard[];
}

export interface SealedMerge {
  readonly directory: string;
  /** SHA-256 of its manifest, which holds the digests of everything else. */
  readonly manifestDigest: string;
}

/** One artefact at one target. */
export interface Publication {
  /** Where it is now: a path, or a URI with the name of the version. */
  readonly location: string;
  /** Whether the same release was there already. */
  readonly existed: boolean;
  /** `merged` or the id of a conversion; absent where there are no conversions. */
  readonly part?: string;
  /** Kind of the target; absent, as what follows, in runs of earlier versions. */
  readonly target?: string;
  /** The location, pinned so that nobody can move it. */
  readonly pinned?: string;
  /** Bytes of files that were sent. */
  readonly bytesSent?: number;
}

/** The workflow run that made a release. */
export interface RunIdentity {
  readonly workflowId: string;
  readonly runId: string;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
}

export interface Report {
  readonly json: string;
  readonly markdown: string;
  /** Page for a person who decides; absent in reports of earlier versions. */
  readonly html?: string;
}
