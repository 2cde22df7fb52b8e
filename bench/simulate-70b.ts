/**
 * Releases a model with the tensors and files of Llama 3 70B, its bytes divided by `--scale`, and
 * kills the worker when half of it is merged:
 *
 *   node bench/simulate-70b.ts [--scale 100] [--layers 80] [--shards 30]
 *
 * `--scale 1 --layers 1 --shards 1` has tensors of the true size instead of their number. Needs four
 * times the bytes of the base in the directory for temporary files, and Linux. docs/large-models.md
 * has the figures.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatBytes, formatDuration } from '../cli/format.ts';
import { recipeOf, releaseInput, setUpRelease } from '../test/harness/release-setup.ts';
import { heartbeatsOf, startRelease, type TestRelease } from '../test/harness/running-release.ts';
import { startTestServer, type TestServer } from '../test/harness/temporal-server.ts';
import { WorkerProcess } from '../test/harness/worker-process.ts';
import { mergeStatusQuery, statusQuery } from '../workflows/messages.ts';
import { describeHistory, historyFacts } from './history-facts.ts';
import { watchMemory } from './process-memory.ts';
import { StageIo } from './stage-io.ts';
import {
  LLAMA_70B,
  type Shape,
  type SyntheticModel,
  scaledDown,
  writeSyntheticModel,
} from './synthetic-llama.ts';

const RANK = 16;
const PARALLEL_SHARDS = 2;

function tell(line: string): void {
  process.stdout.write(`${line}\n`);
}

function chosenShape(): Shape {
  const { values } = parseArgs({
    options: {
      scale: { type: 'string', default: '100' },
      layers: { type: 'string', default: '80' },
      shards: { type: 'string', default: '30' },
    },
  });
  const scaled = scaledDown(LLAMA_70B, Math.sqrt(Number(values.scale)));
  const layers = Number(values.layers);
  // Of few layers the vocabulary would be most of the bytes.
  const vocabulary = Math.round((scaled.vocabulary * layers) / LLAMA_70B.layers);
  return { ...scaled, layers, vocabulary, shards: Number(values.shards) };
}

/** Bytes merged so far: of finished shards, and of those under way by their heartbeats. */
async function bytesMerged(server: TestServer, release: TestRelease): Promise<number> {
  const merge = server.client.workflow.getHandle(`${release.workflowId}/merge`);
  const { bytesDone } = await merge.query(mergeStatusQuery);
  const beats = await heartbeatsOf(merge);
  return beats.reduce((sum, beat) => sum + beat.bytesDone, bytesDone);
}

async function simulate(server: TestServer, model: SyntheticModel): Promise<void> {
  const variables = { WELDLINE_MERGE_SLOTS: String(PARALLEL_SHARDS) };
  const setup = await setUpRelease(join(server.directory, 'release'), { variables });
  const { base, adapter, weightBytes } = model;
  const first = await new WorkerProcess(server, setup.variables).ready();
  let worker = first;
  try {
    const memory = watchMemory(first.pid, false);
    const io = new StageIo(first.pid);
    const recipe = recipeOf(setup, { name: 'simulated', base, adapter });
    const input = releaseInput(recipe, { parallelShards: PARALLEL_SHARDS });
    const startedAt = performance.now();
    const release = await startRelease(server.client, input);
    await io.follow(release, async ({ stages }) => {
      const merging = stages.find(({ stage }) => stage === 'merge')?.state === 'running';
      return merging && (await bytesMerged(server, release).catch(() => 0)) >= weightBytes / 2;
    });
    // Stopped first, so that what it has written is known to the byte.
    process.kill(first.pid, 'SIGSTOP');
    io.count('merge');
    const { peakBytes } = memory();
    const before = io.of('merge');
    await first.kill();
    worker = new WorkerProcess(server, setup.variables);
    io.changeProcess(worker.pid);
    await worker.ready();
    const rest = io.follow(release, async () => false);
    const { verification } = await release.result();
    await rest;
    const seconds = (performance.now() - startedAt) / 1000;
    tell(`whole release with the kill: ${formatDuration(1000 * seconds)}`);
    tell(`written before the kill: ${formatBytes(before.written)}`);
    // A query after the kill waits so long that the rest of the merge may count as verify.
    const upToVerify = (['merge', 'seal', 'verify'] as const).map((stage) => io.of(stage).written);
    const repeated = upToVerify.reduce((sum, bytes) => sum + bytes, 0) - weightBytes;
    const lanes = Math.min(PARALLEL_SHARDS, model.shards);
    tell(`written twice: ${formatBytes(repeated)}, up to ${lanes} shard(s) under way`);
    tell(`largest tensor: ${formatBytes(model.largestTensorBytes)}`);
    tell(`verified: ${verification.tensorsChecked} tensors, ${verification.filesChecked} files`);
    tell(`peak memory of the worker: ${formatBytes(peakBytes)}`);
    await tellHistories(server, release);
    for (const [stage, { read, written }] of io.stages) {
      const times = (bytes: number): string => (bytes / weightBytes).toFixed(2);
      tell(`| ${stage} | ${times(read)} | ${times(written)} |`);
    }
  } finally {
    await worker.kill();
    await first.kill();
    await rm(setup.home, { recursive: true, force: true });
  }
}

async function tellHistories(server: TestServer, release: TestRelease): Promise<void> {
  const { client } = server;
  const ofRelease = await historyFacts(client, release.workflowId);
  const ofMerge = await historyFacts(client, `${release.workflowId}/merge`);
  tell(`release: ${describeHistory(ofRelease)}`);
  tell(`merge: ${describeHistory(ofMerge)}`);
  const status = JSON.stringify(await release.query(statusQuery));
  tell(`status: ${formatBytes(status.length)}`);
}

const server = await startTestServer();
try {
  const directory = join(server.directory, 'model');
  const model = await writeSyntheticModel(directory, chosenShape(), { rank: RANK });
  tell(`${model.tensors} tensors in ${model.shards} files, ${formatBytes(model.weightBytes)}`);
  await simulate(server, model);
} finally {
  await server.stop();
}
