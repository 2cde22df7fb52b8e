/** Does to a release what was drawn. */
import { execFileSync } from 'node:child_process';
import { rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EXIT } from '../../cli/exit-codes.ts';
import type { RunningCommand } from '../harness/command.ts';
import type { ProxyFault } from '../harness/faulty-proxy.ts';
import type { Fault } from '../hub-server/faults.ts';
import { survivors } from '../tools/is-alive.ts';
import { type Crew, kill, signalTo } from './crew.ts';
import type { DrawnFault } from './draw-round.ts';
import type { RoundPlace, SoakWorld } from './soak-world.ts';

const FREEZE_MS_MIN = 300;
const FREEZE_MS_SPREAD = 9_000;
/** So long the volume stays full; a command that waits for room has ended before. */
const FULL_MS_MAX = 6_000;
const ROOM_BYTES_MAX = 1024 * 1024;
/** Holds the models, the cache, the workspace and what is published, and what a server writes. */
const VOLUME_BYTES = 192 * 1024 * 1024;

export interface Struck {
  /** What was hit, for the record; undefined where there was nothing to hit. */
  readonly victim: string | undefined;
  /** What it must not have done. */
  readonly problems: readonly string[];
}

export interface Scene {
  readonly world: SoakWorld;
  readonly place: RoundPlace;
  readonly crew: Crew;
  readonly command: RunningCommand;
}

export async function strike(fault: DrawnFault, scene: Scene): Promise<Struck> {
  const { crew, command, world } = scene;
  const { variant } = fault;
  switch (fault.kind) {
    case 'kill-command':
      return end(command, 'SIGKILL', scene, 'command');
    case 'kill-worker':
      return endWorker(variant, 'SIGKILL', scene);
    case 'terminate':
      return variant % 2 === 0 && crew.workers.length > 0
        ? endWorker(variant >> 1, 'SIGTERM', scene)
        : end(command, 'SIGTERM', scene, 'command');
    case 'kill-server':
      return hit(await crew.serverPid(), 'server', (pid) => kill(pid, 'SIGKILL'));
    case 'kill-tool': {
      const pids = await crew.tools();
      return hit(pids[variant % pids.length], 'tool', (pid) => kill(pid, 'SIGKILL'));
    }
    case 'freeze':
      return freeze(variant, scene);
    case 'disk-full':
      return fillVolume(variant, scene);
    case 'hub':
      return hubFault(variant, world);
    case 'bucket':
      return bucketFault(variant, world);
  }
}

async function hit(
  pid: number | undefined,
  victim: string,
  action: (pid: number) => void,
): Promise<Struck> {
  if (pid === undefined) return { victim: undefined, problems: [] };
  action(pid);
  return { victim, problems: [] };
}

async function end(
  command: RunningCommand,
  signal: NodeJS.Signals,
  { crew }: Scene,
  victim: string,
): Promise<Struck> {
  // In a fleet, programs of the other worker have a right to live.
  const tools = crew.workers.length === 0 ? await crew.tools() : [];
  signalTo(command, signal);
  const { status, stdout, stderr } = await command.ended;
  // Node itself needs a moment before it hears of signals; nothing has begun by then.
  if (status === null && stdout + stderr === '') return { victim, problems: [] };
  const alive = tools.length === 0 ? [] : await survivors(tools);
  const problems = alive.map((pid) => `program ${pid} has outlived its worker`);
  // In that moment it may have been finished, or have found that the release waits for a person.
  const isInOrder = [EXIT.ok, EXIT.waiting, EXIT.interrupted].some((each) => each === status);
  if (signal === 'SIGTERM' && !isInOrder) {
    problems.push(`ended with ${status} when it was told to stop: ${stderr}`);
  }
  return { victim, problems };
}

async function endWorker(variant: number, signal: NodeJS.Signals, scene: Scene): Promise<Struck> {
  const { workers, replaceWorker } = scene.crew;
  const index = variant % workers.length;
  const worker = workers[index];
  if (worker === undefined) return { victim: undefined, problems: [] };
  const struck = await end(worker, signal, scene, 'worker');
  await replaceWorker(index);
  return struck;
}

async function freeze(variant: number, { crew, command }: Scene): Promise<Struck> {
  const worker = crew.workers[variant % 2]?.child.pid;
  const victims: readonly (readonly [string, number | undefined])[] = [
    ['server', await crew.serverPid()],
    ['command', command.child.pid],
    ...(worker === undefined ? [] : [['worker', worker] as const]),
  ];
  const [victim, pid] = victims[variant % victims.length]!;
  if (pid === undefined) return { victim: undefined, problems: [] };
  kill(pid, 'SIGSTOP');
  await sleep(FREEZE_MS_MIN + (variant % FREEZE_MS_SPREAD));
  kill(pid, 'SIGCONT');
  return { victim, problems: [] };
}

/** A volume of its own for a round whose disk will be full; needs the right to mount. */
export function mountVolume(directory: string): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${VOLUME_BYTES}`, 'weldline-test', directory]);
}

export function unmountVolume(directory: string): void {
  execFileSync('umount', ['--lazy', directory]);
}

async function fillVolume(variant: number, { place, command }: Scene): Promise<Struck> {
  const filler = join(place.directory, 'filler');
  const { bavail, bsize } = await statfs(place.directory);
  const room = variant % ROOM_BYTES_MAX;
  // What is written meanwhile may leave less: then it is as full as can be.
  await writeFile(filler, Buffer.alloc(Math.max(0, bavail * bsize - room))).catch(() => undefined);
  await Promise.race([command.ended, sleep(FULL_MS_MAX)]);
  await rm(filler, { force: true });
  return { victim: 'disk', problems: [] };
}

const times = (variant: number): number => 1 + ((variant >> 4) % 5);

/** Of six kinds the last is the one that a release must wait for, half a minute at a time. */
async function hubFault(variant: number, { hub }: SoakWorld): Promise<Struck> {
  const afterBytes = variant % 100_000;
  const faults: readonly Fault[] = [
    { kind: 'status', status: 503, target: 'api', times: times(variant) },
    { kind: 'status', status: 500, target: 'storage', times: times(variant) },
    { kind: 'drop', target: 'storage', afterBytes, times: times(variant) },
    { kind: 'corrupt', target: 'storage', path: /safetensors$/, afterBytes, times: 1 },
    { kind: 'slow', target: 'storage', bytesPerSecond: 2_000_000, times: 3 },
    { kind: 'short', target: 'storage', afterBytes, times: 2 },
    { kind: 'stall', target: 'storage', afterBytes, times: 1 },
  ];
  const fault = faults[variant % faults.length]!;
  hub.inject(fault);
  return { victim: `hub ${fault.kind}`, problems: [] };
}

async function bucketFault(variant: number, { s3 }: SoakWorld): Promise<Struck> {
  const put = { method: /^(PUT|POST)$/, skip: (variant >> 8) % 12 };
  const faults: readonly ProxyFault[] = [
    { kind: 'status', status: 503, ...put, times: times(variant) },
    { kind: 'drop-request', ...put, afterBytes: 'half', times: times(variant) },
    { kind: 'drop-answer', ...put, times: times(variant) },
    { kind: 'status-after', status: 500, ...put, times: times(variant) },
    { kind: 'slow', ...put, delayMs: 2_000, times: 2 },
    { kind: 'stall', ...put, times: 1 },
  ];
  const fault = faults[variant % faults.length]!;
  s3.fail(fault);
  return { victim: `bucket ${fault.kind}`, problems: [] };
}
