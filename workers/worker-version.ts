import { createHash } from 'node:crypto';
import type { WorkerOptions } from '@temporalio/worker';
import type { WorkerEnvironment } from '../config/worker-environment.ts';
import { ENGINE_VERSION } from '../engine/version.ts';

export interface WorkerVersion {
  /** Absent where workers are not versioned. */
  readonly deployment?: string;
  readonly buildId: string;
}

/**
 * Which version a worker is: what the operator calls it, else what its workflows are. Activities are
 * no part of that: another attempt of them may run on any version.
 */
export function workerVersion({ deployment }: WorkerEnvironment, bundle: string): WorkerVersion {
  const digest = createHash('sha256').update(bundle).digest('hex').slice(0, 12);
  const buildId = deployment?.buildId ?? `${ENGINE_VERSION}-${digest}`;
  return { ...(deployment && { deployment: deployment.name }), buildId };
}

/**
 * Releases stay with the version that they began on. They would replay on a later one too, but a
 * release that began is best finished by the code that it was tried with; who wants to move one
 * that waits for weeks can (`temporal workflow update-options`).
 */
export function deploymentOptions({
  deployment,
  buildId,
}: WorkerVersion): Pick<WorkerOptions, 'workerDeploymentOptions'> {
  if (deployment === undefined) return {};
  return {
    workerDeploymentOptions: {
      useWorkerVersioning: true,
      version: { deploymentName: deployment, buildId },
      defaultVersioningBehavior: 'PINNED',
    },
  };
}
