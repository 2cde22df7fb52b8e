import type { Activities } from '../activities/create-activities.ts';
import type { Role } from '../activities/types.ts';
import type { WorkerEnvironment } from '../config/worker-environment.ts';
import { placeOf, TASK_QUEUE } from './task-queues.ts';

export const ROLES: readonly Role[] = ['control', 'merge', 'convert', 'gpu'];

/** One worker of the SDK: it polls one queue. */
export interface WorkerSpec {
  readonly taskQueue: string;
  readonly activities: Partial<Activities>;
  /** Whether it carries workflows on. */
  readonly workflows: boolean;
  /** Activities side by side. */
  readonly slots: number;
}

/** Activities other than merges wait for disks and networks, so several go side by side. */
const CONTROL_SLOTS = 8;

/** The workers of a process: one for each queue that its roles serve. */
export function workerSpecs(
  environment: WorkerEnvironment,
  roles: readonly Role[],
  activities: Activities,
): readonly WorkerSpec[] {
  const { mergeShard, convert, evaluate, place, answer, ...others } = activities;
  const { queues, presence } = placeOf(environment);
  const specs: Readonly<Record<Role, readonly WorkerSpec[]>> = {
    control:
      presence === undefined
        ? [spec(TASK_QUEUE, { place, ...others }, CONTROL_SLOTS, true)]
        : [
            spec(TASK_QUEUE, { place }, 1, true),
            spec(queues.control, others, CONTROL_SLOTS),
            spec(presence.queue, { answer }, 1),
          ],
    merge: [spec(queues.merge, { mergeShard }, environment.slots.merge ?? 1)],
    convert: [spec(queues.convert, { convert }, environment.slots.convert ?? 1)],
    gpu: [spec(queues.gpu, { convert, evaluate }, environment.slots.gpu ?? 1)],
  };
  return ROLES.filter((role) => roles.includes(role)).flatMap((role) => specs[role]);
}

function spec(
  taskQueue: string,
  activities: Partial<Activities>,
  slots: number,
  workflows = false,
): WorkerSpec {
  return { taskQueue, activities, workflows, slots };
}
