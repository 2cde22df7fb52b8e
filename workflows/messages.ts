/** What the outside says to a release and asks of it. Imported by clients too. */
import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow';
import type { Approval, Judged, MovedAlias } from '../activities/quality-types.ts';
import type {
  CleanedUp,
  PlanReference,
  Publication,
  ReleaseContext,
  Report,
  ResolvedInputs,
} from '../activities/types.ts';
import type { Verification } from '../engine/verify/verify-merge.ts';
import type { EarlierQueues } from './placement.ts';

/** The stages that exist, in their order. Those between verify and publish only if asked for. */
export const STAGES = [
  'resolve',
  'fetch adapter',
  'preflight',
  'fetch base',
  'plan',
  'merge',
  'seal',
  'verify',
  'convert',
  'evaluate',
  'gate',
  'approve',
  'publish',
  'report',
] as const;

export type Stage = (typeof STAGES)[number];

/** What a release is told. Task queues stand in those of runs of earlier versions only. */
export interface ReleaseInput extends ReleaseContext, EarlierQueues {
  /** Shards merged at the same time, over all workers. */
  readonly parallelShards: number;
  /**
   * After this long without a heartbeat a worker is taken for dead and its work given to another.
   * Short where server and worker are one machine, longer where a server restart must be outlived.
   */
  readonly heartbeatTimeoutMs: number;
}

export interface ReleaseResult {
  readonly artefact: string;
  readonly directory: string;
  readonly planDigest: string;
  readonly manifestDigest: string;
  readonly publications: readonly Publication[];
  /** Aliases that point at this release now and did not before. */
  readonly aliases?: readonly MovedAlias[];
  /** Why others do not; among `warnings` too. */
  readonly aliasWarnings?: readonly string[];
  readonly report: Report;
  /** The gate's decision, where the recipe asks for evaluation. */
  readonly judged?: Judged;
  readonly approval?: Approval;
  readonly verification: Verification;
  readonly warnings: readonly string[];
}

export interface StageStatus {
  readonly stage: Stage;
  readonly state: 'pending' | 'running' | 'paused' | 'waiting' | 'done' | 'failed';
  /** Milliseconds since the epoch, workflow time. */
  readonly startedAtMs?: number;
  readonly finishedAtMs?: number;
}

/** Why a release waits for a person. */
export interface Waiting {
  readonly stage: Stage;
  readonly code: string;
  readonly message: string;
  /** What helps: the cause is mended (`weldline resume`), or a person's word (`weldline approve`). */
  readonly needs?: 'mending' | 'approval' | 'override';
}

/** A person has stopped all work on a release for a while. */
export interface Paused {
  readonly by: string;
  /** ISO 8601, UTC. */
  readonly at: string;
}

export interface ReleaseStatus {
  readonly name: string;
  readonly version: string;
  readonly recipeDigest: string;
  readonly stages: readonly StageStatus[];
  /** The first of what it waits for. */
  readonly waiting?: Waiting;
  /** All that it waits for, where that is more than one. */
  readonly waitings?: readonly Waiting[];
  /** Who has paused it; absent while it goes on. */
  readonly paused?: Paused;
  /** The host that does all of it, where hosts have disks of their own. */
  readonly host?: string;
  /** Hosts that did it before, and are gone. What was approved there has to be approved again. */
  readonly movedFrom?: readonly string[];
  readonly judged?: Judged;
  readonly inputs?: ResolvedInputs;
  readonly plan?: PlanReference;
  /** What a release that was cancelled has removed. */
  readonly cleanedUp?: CleanedUp;
  /** The child workflow that merges, once it was started. */
  readonly mergeWorkflowId?: string;
  readonly warnings: readonly string[];
}

/** What a list of releases says of one, without asking it: the memo of its run has it. */
export interface Listed {
  readonly state: 'running' | 'waiting' | 'paused';
  /** Those that run or wait, in their order. */
  readonly stages: readonly Stage[];
  /** Why the first of them waits. */
  readonly code?: string;
}

/** Name of that in the memo. */
export const LISTED = 'weldline';

export interface MergeStatus {
  readonly shardsTotal: number;
  readonly shardsDone: number;
  readonly bytesTotal: number;
  /** Bytes of finished shards; those under way report theirs by heartbeat. */
  readonly bytesDone: number;
}

export const statusQuery = defineQuery<ReleaseStatus>('status');
export const mergeStatusQuery = defineQuery<MergeStatus>('mergeStatus');

/** A person has mended the cause: the waiting stage is run again. */
export const resumeSignal = defineSignal('resume');

/** What a person says to a release that waits for their word. */
export type ApprovalRequest = Omit<Approval, 'at'>;

/** Refused when nothing waits for it, and without a reason where the gate has refused something. */
export const approveUpdate = defineUpdate<Approval, [ApprovalRequest]>('approve');

/** Stops all work on a release until it is resumed. Refused when it is paused already. */
export const pauseUpdate = defineUpdate<void, [{ readonly by: string }]>('pause');

/**
 * Begins a stage again, at once: one that waits for mending, or one whose work is tried again and
 * again. What is finished of it is found. Refused for other stages.
 */
export const retryUpdate = defineUpdate<void, [Stage]>('retry');
