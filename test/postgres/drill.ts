/**
 * Releases on a Temporal server on PostgreSQL whose server and database are killed. By hand, since
 * the server takes a quarter of an hour to compile:
 *
 *   GOBIN=$DIR CGO_ENABLED=0 go install go.temporal.io/server/cmd/server@v1.32.0 \
 *     go.temporal.io/server/cmd/tools/sql@v1.32.0
 *   node test/postgres/drill.ts --temporal $DIR --postgres /usr/lib/postgresql/15/bin
 *
 * Schema, server, namespace and workers run with the commands and settings of docker-compose.yml.
 * Ends with a table, and status 1 where a release did not end as it should.
 */
import { chmod, cp, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import { ROLES } from '../../workers/roles.ts';
import { waitUntil } from '../../workers/wait-until.ts';
import { createWorkers, workersPoll } from '../deploy/compose-processes.ts';
import { ROOT } from '../deploy/compose-project.ts';
import { mergeDirectories } from '../doubles/merge-directories.ts';
import { checkpointDigests } from '../harness/checkpoint-digests.ts';
import { type RunningCommand, startCommand } from '../harness/command.ts';
import { heavyModel } from '../harness/heavy-model.ts';
import { type ReleaseSetup, setUpRelease, writeRecipe } from '../harness/release-setup.ts';
import { activityRuns, type TestRelease, waitForStatus } from '../harness/running-release.ts';
import type { ServiceProcess } from '../harness/service-process.ts';
import { Postgres, TemporalServer } from './compose-services.ts';

/** As long as a supervisor takes to notice and start something again. */
const OUTAGE_MS = 5_000;
const SUPERVISOR_INTERVAL_MS = 1_000;
const WAIT_MS = 240_000;
/** Shards of one release, so that each fault has some in front of it. */
const SHARDS = 12;

const { values } = parseArgs({
  options: {
    temporal: { type: 'string' },
    postgres: { type: 'string', default: '/usr/lib/postgresql/15/bin' },
  },
});
if (values.temporal === undefined) throw new Error('--temporal: the directory of server and sql');

interface Services {
  readonly directory: string;
  readonly postgres: Postgres;
  readonly server: TemporalServer;
  readonly client: Client;
  readonly setup: ReleaseSetup;
  readonly variables: Readonly<Record<string, string>>;
  readonly supervised: Set<ServiceProcess>;
}

const facts: (readonly [string, string])[] = [];
function tell(what: string, figure: string): void {
  facts.push([what, figure]);
  process.stdout.write(`${what}: ${figure}\n`);
}

const secondsSince = (startMs: number): string =>
  `${((performance.now() - startMs) / 1000).toFixed(1)} s`;

/** Starts what ended by itself, as `restart: unless-stopped` does. */
function supervise(services: ReadonlySet<ServiceProcess>): () => void {
  const timer = setInterval(() => {
    for (const service of services) if (!service.isRunning) service.start();
  }, SUPERVISOR_INTERVAL_MS);
  return () => clearInterval(timer);
}

/** How many shards of the release that runs are merged. */
async function shardsDone(client: Client, workflowId: string): Promise<number> {
  const { events } = await client.workflow.getHandle(`${workflowId}/merge`).fetchHistory();
  return (events ?? []).filter((event) => event.activityTaskCompletedEventAttributes != null)
    .length;
}

async function waitForShards(client: Client, workflowId: string, count: number): Promise<void> {
  const areDone = async (): Promise<boolean> =>
    (await shardsDone(client, workflowId).catch(() => 0)) >= count;
  if (await waitUntil(areDone, { timeoutMs: WAIT_MS, pollMs: 250 })) return;
  throw new Error(`${workflowId}: fewer than ${count} shards are done`);
}

/** Strikes while shards are merged, and says how long it takes until work goes on. */
async function fault(
  name: string,
  services: Services,
  workflowId: string,
  strike: () => Promise<void>,
): Promise<void> {
  const { client, server } = services;
  const before = await shardsDone(client, workflowId);
  tell(`${name}: shards done before, of ${SHARDS}`, String(before));
  const struckMs = performance.now();
  await strike();
  await server.answers();
  tell(`${name}: away for`, secondsSince(struckMs));
  const [healthyMs, healthyAtMs] = [performance.now(), Date.now()];
  await waitForShards(client, workflowId, before + 1);
  tell(`${name}: until the next shard is done`, secondsSince(healthyMs));
  await workersPoll(client, ROLES, healthyAtMs);
  tell(`${name}: until all workers ask for work again`, secondsSince(healthyMs));
}

async function killServer({ server, supervised }: Services): Promise<void> {
  supervised.delete(server);
  await server.kill();
  await sleep(OUTAGE_MS);
  server.start();
  supervised.add(server);
}

async function killDatabase({ postgres }: Services): Promise<void> {
  await postgres.kill();
  await sleep(OUTAGE_MS);
  postgres.start();
  await postgres.answers();
}

async function ended(release: RunningCommand, what: string): Promise<string> {
  const { status, stdout, stderr, ms } = await release.ended;
  if (status !== 0) throw new Error(`${what} ended with ${status}:\n${stdout}\n${stderr}`);
  tell(what, `${(ms / 1000).toFixed(1)} s`);
  return /^ {2}published +(\S+)/m.exec(stdout)?.[1] ?? '';
}

async function assertSame(
  directory: string,
  expected: ReadonlyMap<string, string>,
  what: string,
): Promise<void> {
  const found = await checkpointDigests(directory);
  if (found.size === 0 || JSON.stringify([...found]) !== JSON.stringify([...expected])) {
    throw new Error(`${what}: ${directory} differs from the undisturbed merge`);
  }
  tell(`${what}: ${found.size} files`, 'the bytes of the undisturbed merge');
}

async function tellAttempts(client: Client, workflowId: string): Promise<void> {
  for (const id of [workflowId, `${workflowId}/merge`]) {
    const runs = await activityRuns(client.workflow.getHandle(id));
    const again = runs.filter(({ attempts }) => attempts > 1);
    const list = again.map(({ type, attempts, failures }) => `${type} ${attempts} (${failures})`);
    tell(
      `${id}: activities, attempts over the first`,
      `${runs.length}, ${list.join(' ') || 'none'}`,
    );
  }
}

async function releaseExample({ directory, variables }: Services): Promise<void> {
  const example = join(directory, 'tiny');
  await cp(join(ROOT, 'examples/tiny'), example, {
    recursive: true,
    filter: (path) => !path.endsWith('/releases'),
  });
  const recipe = join(example, 'recipe.yaml');
  const release = await startCommand(['release', recipe], { variables });
  const published = await ended(release, 'release of examples/tiny');
  const expected = join(directory, 'tiny-expected');
  await mergeDirectories({
    base: join(example, 'base'),
    adapter: join(example, 'adapters/calculator'),
    output: expected,
  });
  await assertSame(published, await checkpointDigests(expected), 'examples/tiny');
}

async function releaseUndisturbed({ setup, variables }: Services): Promise<void> {
  const recipe = await writeRecipe(setup, { name: 'heavy', version: '1.0.0' });
  await ended(await startCommand(['release', recipe], { variables }), 'undisturbed release');
  await rm(join(setup.home, 'merges'), { recursive: true });
}

async function releaseDisturbed(services: Services): Promise<void> {
  const { client, setup, variables, postgres, server } = services;
  const expected = join(setup.directory, 'expected');
  await mergeDirectories({ base: setup.base, adapter: setup.adapter, output: expected });
  const recipe = await writeRecipe(setup, { name: 'heavy', version: '1.0.1' });
  const release = await startCommand(['release', recipe], { variables });
  const workflowId = 'release-heavy-1.0.1';
  await waitForShards(client, workflowId, 1);
  await fault('server killed', services, workflowId, () => killServer(services));
  await fault('database killed', services, workflowId, () => killDatabase(services));
  const published = await ended(release, 'disturbed release, by the same command');
  await assertSame(published, await checkpointDigests(expected), 'disturbed release');
  await tellAttempts(client, workflowId);
  tell('restarts of server and database', `${server.restarts}, ${postgres.restarts}`);
}

/** A release waits for a person while the database is replaced by its backup; then she says yes. */
async function moveToBackup(services: Services): Promise<Postgres> {
  const { client, directory, server, setup, supervised, variables } = services;
  const recipe = await writeRecipe(setup, { name: 'waiting', approval: 'required' });
  const { status } = await (await startCommand(['release', recipe, '--detach'], { variables }))
    .ended;
  if (status !== 0) throw new Error(`release --detach ended with ${status}`);
  const handle = client.workflow.getHandle('release-waiting-1.0.0') as TestRelease;
  await waitForStatus(
    handle,
    'a release that waits',
    ({ waiting }) => waiting?.needs === 'approval',
    WAIT_MS,
  );

  supervised.delete(server);
  await server.stop();
  const dump = join(directory, 'temporal.sql');
  await services.postgres.dump(dump);
  tell('backup', `${((await stat(dump)).size / 1e6).toFixed(1)} MB`);
  await services.postgres.stop('SIGINT');

  const restored = join(directory, 'restored');
  const postgres = await Postgres.create(restored, values.postgres, services.postgres.port);
  postgres.start();
  await postgres.answers();
  await postgres.restore(dump);
  server.start();
  supervised.add(server);
  await server.answers();
  const approve = await startCommand(['approve', 'release-waiting-1.0.0'], { variables });
  await ended(approve, 'approval after the restore');
  await handle.result();
  tell('release that waited through backup and restore', (await handle.describe()).status.name);
  return postgres;
}

/** Resident memory, as the kernel counted it. */
async function memoryAtMost({ pid }: ServiceProcess): Promise<string> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8');
  return `${Math.round(Number(/VmHWM:\s+(\d+)/.exec(text)?.[1]) / 1024)} MiB`;
}

async function drill(directory: string): Promise<void> {
  let postgres = await Postgres.create(join(directory, 'postgres'), values.postgres);
  const server = await TemporalServer.create(directory, values.temporal ?? '', postgres.port);
  const workers: ServiceProcess[] = [];
  let stopSupervision = (): void => undefined;
  try {
    postgres.start();
    await postgres.answers();
    const schemaMs = performance.now();
    await server.setUpSchema();
    tell('schema', secondsSince(schemaMs));
    await server.setUpSchema();
    const serverMs = performance.now();
    server.start();
    await server.answers();
    tell('start of the server', secondsSince(serverMs));
    await server.registerNamespace();
    if (!(await server.registerNamespace()).includes('exists')) throw new Error('namespace');
    const heavy = heavyModel({ layers: SHARDS, shards: SHARDS, extent: 1024, rank: 1024 });
    const setup = await setUpRelease(directory, heavy);
    workers.push(...createWorkers(ROLES, directory, server.address, setup.variables));
    const startedAtMs = Date.now();
    for (const worker of workers) worker.start();
    const supervised = new Set<ServiceProcess>([server, ...workers]);
    stopSupervision = supervise(supervised);
    const client = new Client({ connection: await Connection.connect(server) });
    await workersPoll(client, ROLES, startedAtMs);
    const variables = { ...setup.variables, TEMPORAL_ADDRESS: server.address };
    const services = { directory, postgres, server, client, setup, variables, supervised };
    await releaseExample(services);
    await releaseUndisturbed(services);
    await releaseDisturbed(services);
    tell('memory of the server at most', await memoryAtMost(server));
    postgres = await moveToBackup(services);
    tell('restarts of the workers', workers.map(({ restarts }) => restarts).join(', '));
    await client.connection.close();
  } finally {
    stopSupervision();
    await Promise.all(workers.map((worker) => worker.stop()));
    await server.stop();
    await postgres.stop('SIGINT');
  }
}

const directory = await mkdtemp(join(tmpdir(), 'weldline-postgres-'));
// The database runs as somebody else.
await chmod(directory, 0o711);
await drill(directory);
await rm(directory, { recursive: true });
process.stdout.write(`\n${facts.map(([what, figure]) => `| ${what} | ${figure} |`).join('\n')}\n`);
