import type { Activities } from '../activities/create-activities.ts';
import type { Role } from '../activities/types.ts';
import type { WorkerEnvironment } from '../config/worker-environment.ts';
import { ROLES } from './roles.ts';
import type { Slots } from './slots.ts';
import { placeOf, presenceQueue, TASK_QUEUE } from './task-queues.ts';

/** One worker of the SDK: it polls one queue. */
export interface WorkerSpec {
  readonly taskQueue: string;
  readonly activities: Partial<Activities>;
  /** Whether it carries workflows on. */
  readonly workflows: boolean;
  /** Activities side by side. */
  readonly slots: number;
  /** Whether it serves the releases of its version only. */
  readonly isVersioned: boolean;
}

/** The workers of a process: one for each queue that its roles serve. */
export function workerSpecs(
  environment: WorkerEnvironment,
  roles: readonly Role[],
  slots: Slots,
  activities: Activities,
): readonly WorkerSpec[] {
  const { mergeShard, convert, evaluate, place, answer, ...others } = activities;
  const { queues, host } = placeOf(environment);
  const specs: Readonly<Record<Role, readonly WorkerSpec[]>> = {
    control:
      host === undefined
        ? [spec(TASK_QUEUE, { place, ...others }, slots.control, true)]
        : [spec(TASK_QUEUE, { place }, 1, true), spec(queues.control, others, slots.control)],
    merge: [spec(queues.merge, { mergeShard }, slots.merge)],
    convert: [spec(queues.convert, { convert }, slots.convert)],
    gpu: [spec(queues.gpu, { convert, evaluate }, slots.gpu)],
  };
  const presence = { ...spec(presenceQueue(environment.host), { answer }, 1), isVersioned: false };
  return [...ROLES.filter((role) => roles.includes(role)).flatMap((role) => specs[role]), presence];
}

function spec(
  taskQueue: string,
  activities: Partial<Activities>,
  slots: number,
  workflows = false,
): WorkerSpec {
  return { taskQueue, activities, workflows, slots, isVersioned: true };
}
