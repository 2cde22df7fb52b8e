/** What docs/scaling.md says of roles and variables is so. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { readEnvironment } from '../../config/environment.ts';
import { presenceQueue, SHARED_QUEUES } from '../../workers/task-queues.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const text = readFileSync(join(ROOT, 'docs', 'scaling.md'), 'utf8');

test('every role has a row with its queue, and there is no other', () => {
  const rows = [...text.matchAll(/^\| `(\w+)` \| `([\w-]+)` \|/gm)].map(([, ...cells]) => cells);
  expect(Object.fromEntries(rows)).toEqual(SHARED_QUEUES);
  expect(text).toContain(presenceQueue('HOST'));
});

test('its variables are those that workers read', () => {
  const given = {
    WELDLINE_STORAGE: 'local',
    WELDLINE_HOST: 'node-7',
    WELDLINE_HOST_TIMEOUT: '600',
    WELDLINE_DEPLOYMENT: 'weldline',
    WELDLINE_BUILD_ID: '2026-11-28.1',
    WELDLINE_MERGE_SLOTS: '2',
    WELDLINE_CONVERT_SLOTS: '3',
    WELDLINE_GPU_SLOTS: '4',
    WELDLINE_THREADS: '5',
    WELDLINE_MEMORY_BUDGET: '6GB',
    WELDLINE_HOME: '/srv/weldline',
  };
  const named = new Set([...text.matchAll(/WELDLINE_[A-Z_]+/g)].map(([name]) => name));
  expect([...named].sort()).toEqual(Object.keys(given).sort());
  expect(readEnvironment(given)).toMatchObject({
    home: '/srv/weldline',
    threads: 5,
    memoryBudgetBytes: 6e9,
    worker: {
      storage: 'local',
      host: 'node-7',
      hostTimeoutMs: 600_000,
      deployment: { name: 'weldline', buildId: '2026-11-28.1' },
      slots: { merge: 2, convert: 3, gpu: 4 },
    },
  });
  const { storage, hostTimeoutMs } = readEnvironment({ WELDLINE_HOME: '/x' }).worker;
  expect({ storage, hostTimeoutMs }).toEqual({ storage: 'shared', hostTimeoutMs: 600_000 });
});
