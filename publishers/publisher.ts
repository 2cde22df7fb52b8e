import type { WeldlineError } from '../engine/errors.ts';

export { PATIENCE, type Patience } from '../remote/patience.ts';

/**
 * The port behind which releases go out. Every implementation passes the conformance suite in
 * `test/conformance/publisher.ts`, also while its server fails in all the ways that servers do.
 *
 * What all of them promise:
 * - **Commit last.** `release.json` (a tag, a commit: whatever makes a version visible) is written
 *   after everything else and its verification. Before that nothing is to be seen under the version.
 * - **A version is immutable.** The same artefact again is a no-op; another under the same id is
 *   `publish.conflict`, and changes nothing.
 * - **What is there is not sent again.** A publication that was interrupted goes on; a file whose
 *   bytes the target has, from this or another artefact, is not uploaded.
 * - **Nothing is trusted.** What arrived is compared with the digests before it is made visible.
 */

/** What is published as one thing: the merged checkpoint of a release, or one conversion of it. */
export interface ArtefactId {
  /** `merged-<base>-<version>-adapter-<adapter>-<adapter version>`. */
  readonly release: string;
  /** Id of a conversion (`gguf-q4_k_m`); absent for the merged checkpoint. */
  readonly part?: string;
}

/** The name of an artefact: the release's, and behind it the conversion's. */
export function artefactNameOf({ release, part }: ArtefactId): string {
  return part === undefined ? release : `${release}-${part}`;
}

export interface ArtefactFile {
  /** Relative, with forward slashes; checked to be plain. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Hex. */
  readonly sha256: string;
  /** Absolute path of a file with these bytes; may be missing where the target has them already. */
  readonly source: string;
}

export { RELEASE_FILE } from '../engine/manifest.ts';

/** An artefact that is ready to go. */
export interface Artefact extends ArtefactId {
  /** SHA-256 of the manifest of its weights: two artefacts are the same if this is. */
  readonly manifestDigest: string;
  readonly planDigest: string;
  /** All files, `release.json` last. */
  readonly files: readonly ArtefactFile[];
  /** What registries show of it. */
  readonly description: ArtefactDescription;
}

/** What a registry can be told of an artefact beside its files. */
export interface ArtefactDescription {
  readonly name: string;
  readonly version: string;
  readonly kind: 'merged' | 'gguf' | 'gguf-adapter' | 'awq' | 'gptq';
  /** Of the merge, as the recipe names them: `hf://org/name@commit`, or the name of a directory. */
  readonly base: string;
  readonly adapters: readonly { readonly id: string; readonly model: string }[];
  /** Workflow id and run id. */
  readonly run: { readonly workflowId: string; readonly runId: string };
  /** Of the release, ISO 8601, UTC. */
  readonly createdAt: string;
  /** Scores of the evaluation: `<suite>/<metric>` → value; empty without one. */
  readonly metrics: Readonly<Record<string, number>>;
  readonly gate?: 'passed' | 'refused' | 'overridden';
  /** SPDX id or the base's own name of its licence, where the base says one. */
  readonly license?: string;
  /** Bits per weight, architecture, …: what a card would show; strings only. */
  readonly labels: Readonly<Record<string, string>>;
}

export interface PublishProgress {
  readonly item: string;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface PublishOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: PublishProgress) => void;
  /** Where the same artefact has been published already, for targets that only point at others. */
  readonly publishedAt: readonly Published[];
}

/** Where an artefact is now. Texts without credentials. */
export interface Published {
  /** Kind of the target: `directory`, `hub`, `s3`, `oci`, `ollama`, `mlflow`. */
  readonly target: string;
  /** What `weldline verify` and other tools take: a path or a URI with the version's name. */
  readonly location: string;
  /** The same, pinned so that nobody can move it (commit, digest); `location` where it cannot move. */
  readonly pinned: string;
  /** Whether the version was there already, be it without its weights, which were put back then. */
  readonly existed: boolean;
  /** Bytes of files that were sent by this call. */
  readonly bytesSent: number;
}

/** An artefact that was found at a target. */
export interface FoundArtefact extends ArtefactId {
  readonly location: string;
  readonly pinned: string;
  readonly manifestDigest: string;
  readonly planDigest: string;
  /** Of its release, ISO 8601, UTC; what "old" is judged by. */
  readonly createdAt: string;
  /** Of the recipe, where the target knows it; only artefacts whose name is known are pruned. */
  readonly name?: string;
  /** Whether its weights were pruned: adapters and documents are all that is there. */
  readonly isPruned: boolean;
}

/** An alias at one target, and where it pointed before. */
export interface AliasState {
  /** The release it points at. */
  readonly release: string;
  /** Where it pointed before, the newest last. */
  readonly history: readonly string[];
}

export interface MoveAlias {
  readonly alias: string;
  readonly part?: string | undefined;
  /** The release that it shall point at; must be published. */
  readonly to: string;
  /** What it was when this was decided; undefined where there was none. */
  readonly from: AliasState | undefined;
  /** What the history becomes: `from`'s with its release behind it, or shortened by a rollback. */
  readonly history: readonly string[];
}

export interface AbandonOptions {
  /** Of the merge that would have been published. */
  readonly planDigest: string;
  /** Whether whole files stay: those that were sent while they were merged are nowhere else. */
  readonly keepsFiles: boolean;
  readonly signal: AbortSignal;
}

export interface Publisher {
  readonly kind: string;
  /** The target, for people: a path or a URI without credentials. */
  readonly name: string;
  /** Whether it holds files, or only points at where other targets hold them. */
  readonly holds: 'files' | 'references';

  /** Whether an artefact of this kind can go there; recipes without a filter publish what can. */
  accepts(kind: ArtefactDescription['kind']): boolean;

  /**
   * Checks before a release begins that the target can be reached and written to, and that nothing
   * else has the version.
   * @param planDigest where it is known; another plan's artefact under the id is a conflict
   * @throws WeldlineError `publish.*`
   */
  check(id: ArtefactId, planDigest: string | undefined, signal: AbortSignal): Promise<void>;

  /**
   * Publishes; see the promises above.
   * @throws WeldlineError `publish.conflict`, `publish.not-writable`, `publish.unauthorized`,
   *   `publish.not-found`, `publish.unavailable`, `publish.rate-limited`, `publish.rejected`,
   *   `publish.verify-failed`, `disk.*`; the signal's reason
   */
  publish(artefact: Artefact, options: PublishOptions): Promise<Published>;

  /** What is published under an id; undefined where nothing is, half a publication included. */
  find(id: ArtefactId, signal: AbortSignal): Promise<FoundArtefact | undefined>;

  /** All that is published there, in any order. */
  list(signal: AbortSignal): Promise<readonly FoundArtefact[]>;

  /**
   * Takes back what is under an id: first what makes it visible, then its files as far as nothing
   * else needs them. Idempotent. Refuses an artefact that an alias points at (`publish.aliased`).
   */
  withdraw(id: ArtefactId, signal: AbortSignal): Promise<void>;

  /**
   * Removes what publications of an id left that did not come to an end. Never what is published, nor
   * what another plan's publication is sending. One of the same plan that is under way loses time, and
   * nothing else. Idempotent. Absent where nothing is left, or the target itself removes it.
   * @returns what was removed, a sentence for each
   */
  abandon?(id: ArtefactId, options: AbandonOptions): Promise<readonly string[]>;

  /**
   * Removes weights and keeps adapters and documents, so that the merge can be made again; refuses
   * an artefact that an alias points at (`publish.aliased`). Absent where the target cannot.
   * @returns bytes that were freed
   */
  prune?(id: ArtefactId, options: { signal: AbortSignal; isDryRun: boolean }): Promise<number>;

  /** Where an alias points; undefined where there is none of that name. */
  readAlias(
    alias: string,
    part: string | undefined,
    signal: AbortSignal,
  ): Promise<AliasState | undefined>;

  /** Names of all aliases, of all parts. */
  listAliases(
    signal: AbortSignal,
  ): Promise<readonly (AliasState & { readonly alias: string; readonly part?: string })[]>;

  /**
   * Moves an alias, atomically where the target can. Readers see where it was or where it is.
   * @throws WeldlineError `publish.alias-moved` if it is no longer what `from` says,
   *   `publish.not-found` if `to` is not published there
   */
  moveAlias(move: MoveAlias, signal: AbortSignal): Promise<void>;
}

/** What request errors of publishers are called, by HTTP status. */
export function codeOfStatus(status: number): WeldlineError['code'] {
  if (status === 401 || status === 403) return 'publish.unauthorized';
  if (status === 404) return 'publish.not-found';
  if (status === 409 || status === 412) return 'publish.conflict';
  if (status === 429) return 'publish.rate-limited';
  return status === 408 || status >= 500 ? 'publish.unavailable' : 'publish.rejected';
}
