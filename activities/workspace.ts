import { join } from 'node:path';
import { digestOf } from '../engine/canonical-json.ts';
import { type Staging, stagingAt } from '../engine/merge/output-directory.ts';
import type { StreamedOutput } from './types.ts';

/** The folder of one merge in the workspace, by the digest of its plan. */
export interface MergeWorkspace {
  readonly root: string;
  readonly plan: string;
  /** What was measured of it, for the report. */
  readonly insight: string;
  /** Where shards grow. */
  readonly staging: Staging;
  /** The sealed checkpoint; without its weights where those were sent away. */
  readonly sealed: string;
}

/**
 * The workspace is addressed by content: the same inputs and options find what an earlier run made
 * of them, other inputs never do.
 */
export function mergeWorkspace(
  home: string,
  planDigest: string,
  output?: StreamedOutput,
): MergeWorkspace {
  const root = join(mergesDirectory(home), planDigest);
  // What is known of shards that were sent to one place says nothing of another.
  const place = output === undefined ? root : join(root, `sent-${digestOf(output).slice(0, 16)}`);
  return {
    root,
    plan: join(root, 'plan.json'),
    insight: join(root, 'insight.json'),
    staging: stagingAt(join(place, 'staging')),
    sealed: join(place, 'sealed'),
  };
}

/** Where merges grow and are kept, each by the digest of its plan. */
export function mergesDirectory(home: string): string {
  return join(home, 'merges');
}

/** Where finished conversions are kept, each by what decides its bytes. */
export function conversionDirectory(home: string): string {
  return join(home, 'conversions');
}

/** Where answers, distributions and results of evaluations are kept. */
export function evaluationDirectory(home: string): string {
  return join(home, 'evaluations');
}

/**
 * Where suites are kept as they were when a release began: all candidates are asked the same, whatever
 * becomes of the recipe's files.
 */
export function suiteDirectory(home: string): string {
  return join(evaluationDirectory(home), 'suites');
}

/**
 * Where the report of a release is written. Not named after the artefact: two releases of the same
 * merge are judged by other suites, and one may wait for a person who reads its report.
 */
export function reportDirectory(home: string, workflowId: string): string {
  return join(home, 'reports', workflowId);
}

/** Where the input of a run is kept, so that it can be started again by whoever has the workspace. */
export function runFile(home: string, workflowId: string): string {
  return join(runsDirectory(home), `${encodeURIComponent(workflowId)}.json`);
}

export function runsDirectory(home: string): string {
  return join(home, 'runs');
}

/** What is said of one artefact, as it is published everywhere; by what it depends on. */
export function artefactDirectory(home: string, key: string): string {
  return join(home, 'artefacts', key);
}

/** What external programs printed for a release. */
export function toolLog(home: string, artefact: string, name: string): string {
  return join(home, 'logs', artefact, `${name}.log`);
}
