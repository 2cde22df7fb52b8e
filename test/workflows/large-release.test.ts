/** Releases of as many tensors and files as those of 400 billion parameters, with fewer bytes. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { historyFacts } from '../../bench/history-facts.ts';
import {
  LLAMA_405B,
  MOE_400B,
  type Shape,
  scaledDown,
  writeSyntheticModel,
} from '../../bench/synthetic-llama.ts';
import type { RunningWorkers } from '../../workers/run-workers.ts';
import { mergeStatusQuery, statusQuery } from '../../workflows/messages.ts';
import {
  type ReleaseSetup,
  recipeOf,
  releaseInput,
  setUpRelease,
} from '../harness/release-setup.ts';
import { startRelease, startTestWorkers } from '../harness/running-release.ts';
import { startTestServer, type TestServer } from '../harness/temporal-server.ts';

/** A sixteenth of what Temporal warns of. The largest is the list of shards, 93 bytes for each. */
const PAYLOAD_BYTES_MAX = 32 * 1024;
/** Temporal proposes a new run after so many. */
const EVENTS_MAX = 4096;

/** Some seconds each on two idle cores. */
const TIMEOUT_MS = 300_000;

let server: TestServer;
let setup: ReleaseSetup;
let workers: RunningWorkers;

beforeAll(async () => {
  server = await startTestServer();
  const variables = { WELDLINE_MERGE_SLOTS: '4', WELDLINE_THREADS: '1' };
  setup = await setUpRelease(join(server.directory, 'release'), { variables });
  workers = await startTestWorkers(server, setup.environment);
});
afterAll(async () => {
  await workers?.stop();
  await server.stop();
});

interface Expected {
  readonly tensors: number;
  readonly shards: number;
}

async function release(name: string, shape: Shape, expected: Expected): Promise<void> {
  const { base, adapter, tensors, shards } = await writeSyntheticModel(
    join(server.directory, name),
    shape,
    // Files that nothing changes are copied, which takes no threads.
    { rank: 4, adaptedLayers: 2 },
  );
  expect({ tensors, shards }).toEqual(expected);
  const recipe = recipeOf(setup, { name, base, adapter });
  const handle = await startRelease(server.client, releaseInput(recipe, { parallelShards: 4 }));
  const { verification, publications } = await handle.result();
  expect(verification.tensorsChecked).toBe(tensors);
  expect(publications).toHaveLength(1);

  const { client } = server;
  const ofRelease = await historyFacts(client, handle.workflowId);
  const ofMerge = await historyFacts(client, `${handle.workflowId}/merge`);
  expect(Math.max(ofRelease.largest.bytes, ofMerge.largest.bytes)).toBeLessThan(PAYLOAD_BYTES_MAX);
  // The release knows nothing of tensors and shards but their number.
  expect(ofRelease.events[0]).toBeLessThan(150);
  expect(ofMerge.events).toHaveLength(1);
  expect(ofMerge.events[0]).toBeLessThan(EVENTS_MAX / 2);

  const status = await handle.query(statusQuery);
  const mergeStatus = await client.workflow
    .getHandle(`${handle.workflowId}/merge`)
    .query(mergeStatusQuery);
  expect(mergeStatus.shardsDone).toBe(shards);
  expect(JSON.stringify([status, mergeStatus]).length).toBeLessThan(8 * 1024);
}

describe('what goes through Temporal', () => {
  it(
    'stays small for the 1,137 tensors in 191 files of a Llama of 405 B',
    async () => {
      const shape = scaledDown(LLAMA_405B, 256);
      await release('dense', shape, { tensors: 1137, shards: 191 });
    },
    TIMEOUT_MS,
  );

  it(
    'stays small for the 21,117 tensors of a mixture of experts',
    async () => {
      // Fewer layers and files than one of 400 B: the number of files is the matter above.
      const shape = { ...scaledDown(MOE_400B, 512), layers: 54, shards: 4 };
      await release('experts', shape, { tensors: 21_117, shards: 4 });
    },
    TIMEOUT_MS,
  );
});
