import type { Place, Role } from '../activities/types.ts';
import type { WorkerEnvironment } from '../config/worker-environment.ts';

/** Workflows, and activities that are quick or wait for networks. */
export const TASK_QUEUE = 'weldline';

/** The queues of workers that share their storage. */
export const SHARED_QUEUES: Readonly<Record<Role, string>> = {
  control: TASK_QUEUE,
  merge: 'weldline-merge',
  convert: 'weldline-convert',
  gpu: 'weldline-gpu',
};

/** The same of one host that has disks of its own. Its name outlives a restart, so that it finds them. */
function hostQueues(host: string): Readonly<Record<Role, string>> {
  const entries = Object.entries(SHARED_QUEUES).map(([role, queue]) => [role, `${queue}@${host}`]);
  return Object.fromEntries(entries) as Record<Role, string>;
}

/**
 * Every process answers there, whatever it does: a queue on which nobody is ever busy tells whether it
 * is there, also while all its slots are taken.
 */
export function presenceQueue(host: string): string {
  return `weldline-presence@${host}`;
}

/** Where a release is done that asks this worker. */
export function placeOf({
  storage,
  host,
  hostTimeoutMs,
}: WorkerEnvironment): Place & { readonly queues: Readonly<Record<Role, string>> } {
  if (storage === 'shared') return { queues: SHARED_QUEUES };
  const presence = { queue: presenceQueue(host), timeoutMs: hostTimeoutMs };
  return { queues: hostQueues(host), host, presence };
}
