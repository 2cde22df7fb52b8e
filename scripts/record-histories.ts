/**
 * Records the histories that `test/workflows/replay.test.ts` replays, by running real releases:
 *
 *   node scripts/record-histories.ts [finished|resumed|paused|cancelled|failed|several|published|continued|nightly|moved|judged|approved …]
 *
 * To be run when a change of the workflows is meant to change what they do, and committed with it.
 * A history that is recorded anew says nothing about releases that are under way: they go on with
 * the new code only if the old histories replay too.
 */
import { cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import { readEnvironment } from '../config/environment.ts';
import { heavyModel } from '../test/harness/heavy-model.ts';
import {
  copyExample,
  exampleSuite,
  type QualityRecipe,
  qualityRecipe,
  setUpQuality,
} from '../test/harness/quality-setup.ts';
import { recipeOf, releaseInput, setUpRelease } from '../test/harness/release-setup.ts';
import {
  heartbeatsOf,
  startRelease,
  startTestWorkers,
  type TestRelease,
  waitForStatus,
} from '../test/harness/running-release.ts';
import { startTestServer } from '../test/harness/temporal-server.ts';
import { waitFor } from '../test/harness/wait-for.ts';
import type { RunningWorkers } from '../workers/run-workers.ts';
import { TASK_QUEUE } from '../workers/task-queues.ts';
import {
  type ApprovalRequest,
  approveUpdate,
  pauseUpdate,
  resumeSignal,
} from '../workflows/messages.ts';
import type { nightlyRelease } from '../workflows/nightly-release.ts';

const HISTORIES = fileURLToPath(new URL('../test/histories', import.meta.url));

/** What stands in the recorded histories in place of the directory they were made in. */
const NEUTRAL_DIRECTORY = '/srv/weldline';

/** So few that a merge of some shards is done in several runs. */
const EVENTS = 40;

const server = await startTestServer({ 'limit.historyCount.suggestContinueAsNew': EVENTS });
const setup = await setUpRelease(
  join(server.directory, 'release'),
  heavyModel({ layers: 4, shards: 2, extent: 1024, rank: 1024 }),
);
let workers = await startTestWorkers(server, setup.environment);

async function record(name: string, workflowId: string, runId?: string): Promise<void> {
  const handle = server.client.workflow.getHandle(workflowId, runId);
  const text = historyToJSON(await handle.fetchHistory());
  const history = neutral(JSON.parse(text));
  await writeFile(join(HISTORIES, `${name}.json`), `${JSON.stringify(history, null, 1)}\n`);
  process.stdout.write(`${name}.json\n`);
}

/** Replaces what is of this machine: paths, in plain text and in payloads, and worker names. */
function neutral(value: unknown, key = ''): unknown {
  if (typeof value === 'string') {
    if (key === 'identity') return 'worker@host';
    if (key === 'data') return encode(neutralText(decode(value)));
    return neutralText(value);
  }
  if (Array.isArray(value)) return value.map((item) => neutral(item));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([name]) => name !== 'stackTrace');
  return Object.fromEntries(entries.map(([name, item]) => [name, neutral(item, name)]));
}

function neutralText(text: string): string {
  return text
    .replaceAll(server.directory, NEUTRAL_DIRECTORY)
    .replaceAll(`${process.pid}@${hostname()}`, 'worker@host');
}

const decode = (data: string): string => Buffer.from(data, 'base64').toString('utf8');
const encode = (text: string): string => Buffer.from(text, 'utf8').toString('base64');

async function release(name: string, targets: readonly string[]): Promise<TestRelease> {
  return startRelease(server.client, releaseInput(recipeOf(setup, { name, targets })));
}

async function recordFinished(): Promise<void> {
  const handle = await release('finished', [setup.target]);
  await handle.result();
  await record('release-finished', handle.workflowId);
  await record('merge-finished', `${handle.workflowId}/merge`);
}

async function recordResumed(): Promise<void> {
  const obstacle = join(server.directory, 'obstacle');
  await writeFile(obstacle, '');
  const handle = await release('resumed', [join(obstacle, 'releases')]);
  await waitForStatus(handle, 'waiting', ({ waiting }) => waiting !== undefined);
  await rm(obstacle);
  await handle.signal(resumeSignal);
  await handle.result();
  await record('release-resumed', handle.workflowId);
}

/** Paused and resumed while it merges. */
async function recordPaused(): Promise<void> {
  await rm(setup.home, { recursive: true });
  const handle = await release('paused', [setup.target]);
  const merge = server.client.workflow.getHandle(`${handle.workflowId}/merge`);
  await waitFor('the merge', async () => {
    const beats = await heartbeatsOf(merge).catch(() => []);
    return beats.length > 0 ? true : undefined;
  });
  await handle.executeUpdate(pauseUpdate, { args: [{ by: 'ada' }] });
  await waitForStatus(handle, 'the pause', ({ stages }) =>
    stages.some(({ stage, state }) => stage === 'merge' && state === 'paused'),
  );
  await handle.signal(resumeSignal);
  await handle.result();
  await record('release-paused', handle.workflowId);
}

/** A merge whose first run hands the rest to another. */
async function recordContinued(): Promise<void> {
  const model = heavyModel({ layers: 12, shards: 12, extent: 64, rank: 8 });
  const many = await setUpRelease(join(server.directory, 'many'), model);
  const recipe = recipeOf(many, { name: 'continued', targets: [setup.target] });
  const handle = await startRelease(server.client, releaseInput(recipe, { parallelShards: 2 }));
  await handle.result();
  const { events } = await handle.fetchHistory();
  const first = events?.find(({ childWorkflowExecutionStartedEventAttributes: each }) => each)
    ?.childWorkflowExecutionStartedEventAttributes?.workflowExecution?.runId;
  await record('merge-continued', `${handle.workflowId}/merge`, first ?? '');
  await record('merge-followed', `${handle.workflowId}/merge`);
}

/** Two nights, the second of which finds nothing new. */
async function recordNightly(): Promise<void> {
  const recipe = recipeOf(setup, { name: 'nightly', version: '1.{date}' });
  const input = { timeZone: 'UTC', cron: [], nightTimeoutMs: 3_600_000 };
  for (const outcome of ['released', 'unchanged']) {
    const workflowId = `nightly-${outcome}`;
    await server.client.workflow.execute<typeof nightlyRelease>('nightlyRelease', {
      workflowId,
      taskQueue: TASK_QUEUE,
      args: [{ ...releaseInput(recipe), ...input }],
    });
    await record(`nightly-${outcome}`, workflowId);
  }
}

/** Approved on one host with a disk of its own, and then made again on another. */
async function recordMoved(): Promise<void> {
  const startHost = (host: string): Promise<RunningWorkers> => {
    const variables = {
      ...setup.variables,
      WELDLINE_HOME: join(server.directory, host),
      WELDLINE_STORAGE: 'local',
      WELDLINE_HOST: host,
      WELDLINE_HOST_TIMEOUT: '3',
    };
    return startTestWorkers(server, readEnvironment(variables));
  };
  await workers.stop();
  workers = await startHost('one');
  const recipe = recipeOf(setup, { name: 'moved', approval: 'required' });
  const handle = await startRelease(server.client, releaseInput(recipe));
  for (const host of ['one', 'two']) {
    await waitForStatus(
      handle,
      'approval',
      (status) => status.host === host && status.waiting?.needs === 'approval',
      120_000,
    );
    if (host === 'one') {
      await workers.stop();
      workers = await startHost('two');
    }
    await handle.executeUpdate(approveUpdate, { args: [{ by: 'ada' }] });
  }
  await handle.result();
  await record('release-moved', handle.workflowId);
}

async function recordCancelled(): Promise<void> {
  await rm(setup.home, { recursive: true });
  const handle = await release('cancelled', [setup.target]);
  const merge = server.client.workflow.getHandle(`${handle.workflowId}/merge`);
  await waitFor('the merge', async () => {
    const beats = await heartbeatsOf(merge).catch(() => []);
    return beats.length > 0 ? true : undefined;
  });
  await handle.cancel();
  await handle.result().catch(() => undefined);
  await record('release-cancelled', handle.workflowId);
  await record('merge-cancelled', merge.workflowId);
}

async function recordFailed(): Promise<void> {
  const recipe = recipeOf(setup, { name: 'failed', adapter: join(server.directory, 'nowhere') });
  const handle = await startRelease(server.client, releaseInput(recipe));
  await handle.result().catch(() => undefined);
  await record('release-failed', handle.workflowId);
}

async function recordSeveral(): Promise<void> {
  const style = join(setup.directory, 'style');
  await cp(setup.adapter, style, { recursive: true });
  const others = [{ id: 'style', model: style, weight: -0.5 }];
  const recipe = recipeOf(setup, { name: 'several', others, combination: 'linear' });
  const handle = await startRelease(server.client, releaseInput(recipe));
  await handle.result();
  await record('release-several', handle.workflowId);
}

/** To more targets than are published to at once, each with an alias that follows. */
async function recordPublished(): Promise<void> {
  const targets = Array.from({ length: 17 }, (_, index) => join(setup.target, `${index}`));
  const recipe = recipeOf(setup, { name: 'published', targets, aliases: ['latest'] });
  const handle = await startRelease(server.client, releaseInput(recipe));
  await handle.result();
  await record('release-published', handle.workflowId);
}

/** Importing torch and transformers several times takes minutes on a busy machine. */
const JUDGED_MS = 15 * 60_000;

/** A release that converts and evaluates; the gate refuses all of it, and a person releases it. */
async function recordJudged(): Promise<void> {
  const handle = await releaseOfExample({
    name: 'judged',
    convert: [{ gguf: { quantization: ['Q8_0'] } }],
    evaluate: { suites: [exampleSuite({ min_score: 1 }, models)] },
  });
  await waitForStatus(handle, 'the gate', ({ waiting }) => waiting !== undefined, JUDGED_MS);
  const args: [ApprovalRequest] = [{ by: 'ada', override: 'a known gap' }];
  await handle.executeUpdate(approveUpdate, { args });
  await handle.result();
  await record('release-judged', handle.workflowId);
}

async function recordApproved(): Promise<void> {
  const handle = await releaseOfExample({ name: 'approved', approval: 'required' });
  await waitForStatus(handle, 'approval', ({ waiting }) => waiting !== undefined);
  await handle.executeUpdate(approveUpdate, { args: [{ by: 'ada' }] });
  await handle.result();
  await record('release-approved', handle.workflowId);
}

const models = join(server.directory, 'example');
let exampleWorkers: RunningWorkers | undefined;

/** Of the example model, by workers that know the tools. */
async function releaseOfExample(recipe: QualityRecipe): Promise<TestRelease> {
  await workers.stop();
  const quality = await setUpQuality(join(server.directory, 'quality'));
  await copyExample(models);
  exampleWorkers ??= await startTestWorkers(server, quality.environment);
  const loaded = qualityRecipe(quality, { ...recipe, models });
  return startRelease(server.client, releaseInput(loaded, { heartbeatTimeoutMs: 60_000 }));
}

const RECORDINGS: Readonly<Record<string, () => Promise<void>>> = {
  finished: recordFinished,
  resumed: recordResumed,
  paused: recordPaused,
  cancelled: recordCancelled,
  failed: recordFailed,
  several: recordSeveral,
  published: recordPublished,
  continued: recordContinued,
  nightly: recordNightly,
  moved: recordMoved,
  judged: recordJudged,
  approved: recordApproved,
};

try {
  await mkdir(HISTORIES, { recursive: true });
  const wanted = process.argv.slice(2);
  for (const [name, recordIt] of Object.entries(RECORDINGS)) {
    if (wanted.length === 0 || wanted.includes(name)) await recordIt();
  }
} finally {
  await exampleWorkers?.stop();
  await workers.stop();
  await server.stop();
}
