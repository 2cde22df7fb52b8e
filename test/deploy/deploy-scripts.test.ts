import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';
import { shareWorkflowBundle } from '../harness/workflow-bundle.ts';
import { testTemporalCli } from '../tools/test-temporal-cli.ts';
import { ROOT } from './compose-project.ts';

const START_TIMEOUT_MS = 60_000;

let server: TestServer;

beforeAll(async () => {
  server = await startTestServer();
});

afterAll(() => server.stop());

async function registerNamespace(name: string) {
  const cli = await testTemporalCli();
  return execa('sh', [join(ROOT, 'deploy/temporal-namespace.sh')], {
    env: {
      PATH: `${dirname(cli.path)}:${process.env['PATH']}`,
      TEMPORAL_ADDRESS: server.address,
      TEMPORAL_NAMESPACE: name,
      NAMESPACE_RETENTION: '30d',
    },
  });
}

test('the namespace is registered once and kept the second time', async () => {
  await registerNamespace('releases');
  const again = await registerNamespace('releases');
  expect(again.stdout).toContain('namespace releases exists');
  const { config } = await server.client.workflowService.describeNamespace({
    namespace: 'releases',
  });
  expect(Number(config?.workflowExecutionRetentionTtl?.seconds)).toBe(30 * 24 * 3600);
});

function checkHealth() {
  return execa(process.execPath, [join(ROOT, 'deploy/worker-health.mjs')], {
    env: { TEMPORAL_ADDRESS: server.address, TEMPORAL_NAMESPACE: server.namespace },
    reject: false,
  });
}

test('a worker of any role is healthy once it asks for work', async () => {
  const before = await checkHealth();
  expect(before.exitCode).toBe(1);
  expect(before.stderr).toContain('polls the task queue weldline-presence@');

  const home = join(server.directory, 'worker-home');
  await mkdir(home);
  await shareWorkflowBundle(home);
  const worker = spawn(process.execPath, [join(ROOT, 'cli/main.ts'), 'worker', '--role', 'merge'], {
    env: { ...process.env, TEMPORAL_ADDRESS: server.address, WELDLINE_HOME: home },
    stdio: 'ignore',
  });
  try {
    await expect
      .poll(async () => (await checkHealth()).exitCode, { timeout: START_TIMEOUT_MS })
      .toBe(0);
  } finally {
    const ended = once(worker, 'exit');
    worker.kill('SIGTERM');
    await ended;
  }
  expect(worker.exitCode).toBe(0);
});
