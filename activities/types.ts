import type { Recipe } from '../config/recipe.ts';
import type { CompletedShard } from '../engine/merge/journal.ts';
import type { ResolvedModel } from '../sources/model-input.ts';

/** What every activity of one release is told. Holds no secrets: it is stored in the history. */
export interface ReleaseContext {
  readonly recipe: Recipe;
  readonly recipeDigest: string;
}

/** A base that is pinned, and whether its weights are read where they are. */
export type ResolvedBase = ResolvedModel & { readonly fetch?: 'stream' };

/** The inputs of a release, pinned. */
export interface ResolvedInputs {
  readonly base: ResolvedBase;
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

/** What of a merge is never on this machine's disk. Plain data: a history holds it. */
export interface StreamedMerge {
  /** The base, if its weights are read where they are. */
  readonly base?: ResolvedModel;
  /** Where shards go as they are made, if not into the workspace. */
  readonly output?: StreamedOutput;
}

export interface StreamedOutput {
  /** Of the S3 target that it will be published to. */
  readonly bucket: string;
  readonly prefix?: string;
  readonly region?: string;
  readonly endpoint?: string;
  /** Name of the artefact. */
  readonly artefact: string;
}

export interface PlanReference {
  readonly digest: string;
  /** Absent where all of a merge is on this machine's disk. */
  readonly streamed?: StreamedMerge;
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
  readonly streamed?: StreamedMerge | undefined;
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

/** What a worker does: workflows and quick work, merges, GGUF conversions, work that a GPU speeds up. */
export type Role = 'control' | 'merge' | 'convert' | 'gpu';

/** Task queue of each role; absent: the one that the workflow is on. */
export type TaskQueues = Readonly<Partial<Record<Role, string>>>;

/** Where a release is done. */
export interface Place {
  readonly queues: TaskQueues;
  /** Absent where all workers share their storage, so that any of them can do any part. */
  readonly host?: string;
  /** How to tell whether that host is still there. */
  readonly presence?: {
    readonly queue: string;
    /** After this long without an answer it is gone. */
    readonly timeoutMs: number;
  };
}

/** What is known of a release that is cancelled. */
export interface CleanUpInput extends ReleaseContext {
  readonly inputs?: ResolvedInputs;
  readonly plan?: PlanReference;
}

export interface CleanedUp {
  /** What was removed: temporary files, uploads that nobody will finish. */
  readonly removed: readonly string[];
  /** What could not be removed, and why; absent where all could. */
  readonly left?: readonly string[];
}
