/** Services of docker-compose.yml as processes of this machine: same commands, same settings. */
import { join } from 'node:path';
import type { Client } from '@temporalio/client';
import type { Role } from '../../activities/types.ts';
import { SHARED_QUEUES } from '../../workers/task-queues.ts';
import { ServiceProcess } from '../harness/service-process.ts';
import { waitFor } from '../harness/wait-for.ts';
import { type ComposeService, environmentOf, ROOT, readProject } from './compose-project.ts';

/** `TASK_QUEUE_TYPE_WORKFLOW` and `TASK_QUEUE_TYPE_ACTIVITY` */
const WORKFLOWS = 1;
const ACTIVITIES = 2;
/** Several processes that start on a busy machine. */
const POLL_TIMEOUT_MS = 100_000;

export const PASSWORD = 'of-a-test-only';

const project = readProject();
const settings = new Map([
  ['POSTGRES_PASSWORD', PASSWORD],
  ['WELDLINE_FILES', '/files'],
]);

/** The environment of a service, with addresses and paths of this machine in place of Docker's. */
export function variablesOf(
  service: string,
  changes: Readonly<Record<string, string>>,
): Record<string, string> {
  const { PATH = '' } = process.env;
  return { PATH, ...environmentOf(serviceOf(service), settings), ...changes };
}

export function commandOf(service: string): readonly string[] {
  return serviceOf(service).command ?? [];
}

function serviceOf(name: string): ComposeService {
  const found = project.services[name];
  if (found === undefined) throw new Error(`docker-compose.yml has no ${name}`);
  return found;
}

/** The workers of some roles, each the process that its container would run. */
export function createWorkers(
  roles: readonly Role[],
  directory: string,
  address: string,
  variables: Readonly<Record<string, string>>,
): ServiceProcess[] {
  return roles.map((role) => {
    const name = `worker-${role}`;
    const env = variablesOf(name, {
      ...variables,
      TEMPORAL_ADDRESS: address,
      WELDLINE_METRICS_ADDRESS: '',
      DOCKER_CONFIG: directory,
    });
    return new ServiceProcess({
      program: process.execPath,
      args: [join(ROOT, 'cli/main.ts'), ...commandOf(name)],
      env,
      logPath: join(directory, `${name}.log`),
    });
  });
}

/** Resolves when workers of all these roles have asked for work since then. */
export async function workersPoll(
  client: Client,
  roles: readonly Role[],
  sinceMs = 0,
): Promise<void> {
  const hasPolled = async (name: string, taskQueueType: number): Promise<boolean> => {
    const request = { namespace: 'default', taskQueue: { name }, taskQueueType };
    const { pollers } = await client.workflowService.describeTaskQueue(request);
    return (pollers ?? []).some(
      ({ lastAccessTime }) => Number(lastAccessTime?.seconds ?? 0) * 1000 >= sinceMs - 1000,
    );
  };
  const allHavePolled = async (): Promise<true | undefined> => {
    const found = await Promise.all([
      hasPolled(SHARED_QUEUES.control, WORKFLOWS),
      ...roles.map((role) => hasPolled(SHARED_QUEUES[role], ACTIVITIES)),
    ]).catch(() => [false]);
    return found.every(Boolean) || undefined;
  };
  await waitFor('the workers', allHavePolled, POLL_TIMEOUT_MS);
}
