/** Health check of a worker, whatever its roles: whether a process of this host asks the server. */
import { hostname } from 'node:os';
import { Client, Connection } from '@temporalio/client';
import { loadClientConnectConfig } from '@temporalio/envconfig';

/** Of its own queue, on which nothing makes it wait: one whose slots are taken takes no other work. */
const TASK_QUEUE = `weldline-presence@${process.env.WELDLINE_HOST?.trim() || hostname()}`;

/** `TASK_QUEUE_TYPE_ACTIVITY` of Temporal's API. */
const ACTIVITY_TASKS = 2;

/** A poll waits for a minute at most before it is made again. */
const SILENCE_MAX_MS = 150_000;

const { connectionOptions, namespace = 'default' } = loadClientConnectConfig();
const connection = await Connection.connect(connectionOptions);
try {
  const { pollers } = await new Client({ connection, namespace }).workflowService.describeTaskQueue(
    {
      namespace,
      taskQueue: { name: TASK_QUEUE },
      taskQueueType: ACTIVITY_TASKS,
    },
  );
  // The SDK's identity of a worker: process id, then host name.
  const lastPollMs = (pollers ?? [])
    .filter(({ identity }) => identity?.endsWith(`@${hostname()}`))
    .map(({ lastAccessTime }) => Number(lastAccessTime?.seconds ?? 0) * 1000);
  const silenceMs = Date.now() - Math.max(0, ...lastPollMs);
  if (silenceMs > SILENCE_MAX_MS) {
    process.stderr.write(
      lastPollMs.length === 0
        ? `no worker of host ${hostname()} polls the task queue ${TASK_QUEUE}\n`
        : `the worker has not polled for ${Math.round(silenceMs / 1000)} s\n`,
    );
    process.exitCode = 1;
  }
} finally {
  await connection.close();
}
