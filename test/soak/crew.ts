/** The processes of one round: a command, and workers and a server of their own where they are a fleet. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { loadRecipe } from '../../config/recipe.ts';
import {
  acquireEmbeddedServer,
  type EmbeddedServer,
  embeddedServerStatus,
  stopEmbeddedServer,
} from '../../workers/embedded-server.ts';
import { RunningCommand } from '../harness/command.ts';
import { releaseInput } from '../harness/release-setup.ts';
import { activityRuns, startRelease } from '../harness/running-release.ts';
import { testTemporalCli } from '../tools/test-temporal-cli.ts';
import type { Mode } from './draw-round.ts';
import type { RoundPlace, SoakWorld } from './soak-world.ts';

/** Short, so that a round need not wait long for a worker to be missed. */
const HEARTBEAT_TIMEOUT_MS = 3_000;
const FLEET = 2;

export interface Crew {
  readonly workers: readonly RunningCommand[];
  /** Runs `weldline` as a person does. */
  run(...args: string[]): RunningCommand;
  serverPid(): Promise<number | undefined>;
  /** In place of one that has ended. */
  replaceWorker(index: number): Promise<void>;
  /** Programs that were started to convert or evaluate, and those that hold their leash. */
  tools(): Promise<readonly number[]>;
  /** Attempts at shards beyond the first of each; undefined where nobody can be asked. */
  repeatedShards(): Promise<number | undefined>;
  /** Ends all that is left. @returns processes that should not have been there any more */
  dismiss(): Promise<readonly number[]>;
}

export async function gatherCrew(world: SoakWorld, place: RoundPlace, mode: Mode): Promise<Crew> {
  const cli = await testTemporalCli();
  const serverHome = mode === 'fleet' ? place.serverHome : place.home;
  const server = mode === 'fleet' ? await startServer(serverHome, cli) : undefined;
  const variables: Record<string, string> = { ...place.variables, WELDLINE_TEMPORAL_CLI: cli.path };
  if (server !== undefined) variables['TEMPORAL_ADDRESS'] = server.address;
  const run = (...args: string[]): RunningCommand =>
    new RunningCommand(args, variables, { program: world.program });
  const workers: RunningCommand[] = [];
  const started: RunningCommand[] = [];
  const startWorker = async (index: number): Promise<void> => {
    const worker = run('worker');
    workers[index] = worker;
    started.push(worker);
    await worker.hasWritten(/Working/);
  };
  const connection =
    server === undefined ? undefined : await Connection.connect({ address: server.address });
  const client = connection && new Client({ connection });
  if (client !== undefined) {
    await Promise.all(Array.from({ length: FLEET }, (_, index) => startWorker(index)));
    const input = releaseInput(await loadRecipe(place.recipe), {
      heartbeatTimeoutMs: HEARTBEAT_TIMEOUT_MS,
    });
    await startRelease(client, input);
  }
  return {
    workers,
    run,
    replaceWorker: startWorker,
    serverPid: async () => (await embeddedServerStatus(serverHome)).pid,
    tools: async () => {
      const pids = await processesOf(place, (command) => !/temporal|\/main\.[jt]s/.test(command));
      return pids;
    },
    async repeatedShards() {
      if (client === undefined) return undefined;
      const merge = client.workflow.getHandle('release-soak-1.0.0/merge');
      const runs = await activityRuns(merge);
      return runs.reduce((sum, { attempts }) => sum + attempts - 1, 0);
    },
    async dismiss() {
      for (const worker of workers) signalTo(worker, 'SIGTERM');
      await Promise.all(workers.map((worker) => worker.ended));
      await connection?.close();
      await server?.release();
      const left = await processesThatStay(place);
      for (const pid of left) kill(pid, 'SIGKILL');
      await stopEmbeddedServer(serverHome, { force: true });
      return left;
    },
  };
}

async function startServer(
  home: string,
  cli: { path: string; version: string },
): Promise<EmbeddedServer> {
  return acquireEmbeddedServer({ home, cli, ui: false });
}

/** Signals one process, not its group; one that has ended is no matter. */
export function signalTo(command: RunningCommand, signal: NodeJS.Signals): void {
  if (command.child.exitCode === null && command.child.signalCode === null) {
    kill(command.child.pid ?? 0, signal);
  }
}

export function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** All that a round has started inherits its home. */
async function processesOf(
  { home }: RoundPlace,
  isWanted: (command: string) => boolean,
): Promise<number[]> {
  const found: number[] = [];
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const variables = await readFile(join('/proc', entry, 'environ'), 'utf8');
      const stat = await readFile(join('/proc', entry, 'stat'), 'utf8');
      if (!variables.split('\0').includes(`WELDLINE_HOME=${home}`) || /\) [ZX] /.test(stat))
        continue;
      const command = await readFile(join('/proc', entry, 'cmdline'), 'utf8');
      if (isWanted(command)) found.push(Number(entry));
    } catch {
      // It ended meanwhile.
    }
  }
  return found;
}

const END_TIMEOUT_MS = 60_000;

/** Processes of a round that do not end by themselves, though all of it is over. */
async function processesThatStay(place: RoundPlace): Promise<readonly number[]> {
  const deadline = Date.now() + END_TIMEOUT_MS;
  for (;;) {
    const left = await processesOf(place, () => true);
    if (left.length === 0 || Date.now() > deadline) return left;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
