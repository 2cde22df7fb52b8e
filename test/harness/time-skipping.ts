/** Temporal's test server: where all workflows wait, its clock jumps to where one goes on. */
import { fileURLToPath } from 'node:url';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { Worker } from '@temporalio/worker';
import { createActivities } from '../../activities/create-activities.ts';
import { createLogger } from '../../workers/logger.ts';
import { dependencies } from '../../workers/main.ts';
import { installRuntime } from '../../workers/runtime.ts';
import { SHARED_QUEUES } from '../../workers/task-queues.ts';
import { loadWorkflowBundle } from '../../workers/workflow-bundle.ts';
import type { ReleaseSetup } from './release-setup.ts';
import { SHARED_BUNDLES } from './workflow-bundle.ts';

/** Installed by test/services/setup.py. */
const SERVER = fileURLToPath(
  new URL('../../.services/python/bin/temporal-test-server', import.meta.url),
);

export async function startTimeSkipping(): Promise<TestWorkflowEnvironment> {
  installRuntime(createLogger('error'));
  return TestWorkflowEnvironment.createTimeSkipping({
    server: { executable: { type: 'existing-path', path: SERVER } },
  });
}

/** Workers on all queues, as one process of weldline has them. @returns a function that stops them */
export async function startSkippingWorkers(
  { nativeConnection, namespace }: TestWorkflowEnvironment,
  { environment }: ReleaseSetup,
): Promise<() => Promise<void>> {
  const code = await loadWorkflowBundle(SHARED_BUNDLES, createLogger('error'));
  const activities = createActivities(dependencies(environment));
  const workers: Worker[] = [];
  for (const taskQueue of Object.values(SHARED_QUEUES)) {
    const common = { connection: nativeConnection, taskQueue, activities };
    const workflows = taskQueue === SHARED_QUEUES.control ? { workflowBundle: { code } } : {};
    workers.push(
      await Worker.create({ ...common, ...workflows, namespace: namespace ?? 'default' }),
    );
  }
  const runs = workers.map((worker) => worker.run());
  return async () => {
    for (const worker of workers) worker.shutdown();
    await Promise.all(runs);
  };
}
