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

/** A third of what Temporal warns of and an eighth of what it refuses. */
const PAYLOAD_BYTES_MAX = 256 * 1024;
/** Temporal proposes a new run after so many. */
const EVENTS_MAX = 4096;

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
    4,
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
  console.log(name, ofRelease, ofMerge);
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
  it('stays small for the 1,137 tensors in 191 files of a Llama of 405 B', async () => {
    const shape = scaledDown(LLAMA_405B, 256);
    await release('dense', shape, { tensors: 1137, shards: 191 });
  });

  it('stays small for the 36,757 tensors of a mixture of experts of 404 B', async () => {
    // As a MoE has it, but in fewer files: their number was the matter above.
    const shape = { ...scaledDown(MOE_400B, 512), shards: 8 };
    await release('experts', shape, { tensors: 36_757, shards: 8 });
  });
});
