/** One round: a release, what befalls it, and what came out. */
import { setTimeout as sleep } from 'node:timers/promises';
import { EXIT } from '../../cli/exit-codes.ts';
import type { CommandResult, RunningCommand } from '../harness/command.ts';
import { type Bytes, unfinished, wrongs } from './check-round.ts';
import { type Crew, gatherCrew } from './crew.ts';
import type { DrawnFault, DrawnRound, FaultKind, Point } from './draw-round.ts';
import { isReached } from './points.ts';
import { makePlace, type RoundPlace, removePlace, type SoakWorld } from './soak-world.ts';
import { mountVolume, strike, unmountVolume } from './strike.ts';

export interface StruckFault {
  readonly kind: FaultKind;
  readonly point: Point;
  /** What was hit; undefined where the release was past it, or had nothing of the kind. */
  readonly victim: string | undefined;
}

export interface RoundOutcome {
  readonly drawn: DrawnRound;
  readonly faults: readonly StruckFault[];
  /** Everything that should not be; empty for a round that went well. */
  readonly problems: readonly string[];
  /** Why commands ended before the release did, by code or signal. */
  readonly stops: readonly string[];
  readonly commands: number;
  readonly ms: number;
  /** Bytes that came from the hub and went into the bucket, over those that there are. */
  readonly fetched: number;
  readonly sent: number;
  /** Attempts at shards that an earlier attempt had begun; a fleet's only. */
  readonly shardsRepeated: number | undefined;
  /** Where it worked, if that was kept to be looked at. */
  readonly directory: string;
}

export interface RoundOptions {
  readonly world: SoakWorld;
  readonly name: string;
  readonly drawn: DrawnRound;
  /** What an undisturbed round published; undefined for that one itself. */
  readonly expected: Bytes | undefined;
  /** Looks at what was published, before it is removed. */
  readonly onPublished?: (place: RoundPlace) => Promise<void>;
}

const COMMANDS_MAX = 25;
/** Far more than any takes on a busy machine. */
const COMMAND_MS_MAX = { merge: 600_000, convert: 1_800_000, quality: 2_700_000 } as const;
const LOOK_INTERVAL_MS = 10;
/** What may end a command without the release: it says what to do, and the next one goes on. */
const MAY_STOP = /^(temporal\.(start-failed|unreachable|worker-failed)|release\.not-found)$/;
const STACK_TRACE = /^\s+at .+:\d+:\d+\)?$/m;

export async function runRound(options: RoundOptions): Promise<RoundOutcome> {
  const { world, name, drawn } = options;
  const startedAt = performance.now();
  world.hub.clearFaults();
  world.hub.requests.length = 0;
  world.s3.clear();
  const isOnVolume = drawn.faults.some(({ kind }) => kind === 'disk-full');
  const place = await makePlace(world, drawn.shape, name, isOnVolume ? mountVolume : undefined);
  const round = new Round(options, place);
  await round.run();
  const [fetched, sent] = [fetchedBytes(world), world.s3.uploadedBytes()];
  const outcome: RoundOutcome = {
    ...{ drawn, fetched, sent, directory: place.directory },
    ...{ faults: round.faults, problems: round.problems, stops: round.stops },
    commands: round.commands,
    shardsRepeated: round.shardsRepeated,
    ms: performance.now() - startedAt,
  };
  if (outcome.problems.length > 0) return outcome;
  await options.onPublished?.(place);
  if (isOnVolume) unmountVolume(place.directory);
  await removePlace(world, place);
  return outcome;
}

function fetchedBytes({ hub }: SoakWorld): number {
  return hub.requests.reduce((sum, { bytesSent }) => sum + bytesSent, 0);
}

class Round {
  readonly faults: StruckFault[] = [];
  readonly problems: string[] = [];
  readonly stops: string[] = [];
  commands = 0;
  shardsRepeated: number | undefined;
  readonly #options: RoundOptions;
  readonly #place: RoundPlace;
  readonly #due: DrawnFault[];
  #isFinished = false;
  /** The command that runs was ended by what was done to it. */
  #wasStruck = false;

  constructor(options: RoundOptions, place: RoundPlace) {
    this.#options = options;
    this.#place = place;
    this.#due = [...options.drawn.faults];
  }

  async run(): Promise<void> {
    const { world, drawn, expected } = this.#options;
    const crew = await gatherCrew(world, this.#place, drawn.mode);
    try {
      while (!this.#isFinished && this.problems.length === 0) await this.#runCommand(crew);
      if (this.#isFinished) {
        this.problems.push(...(await wrongs(world, this.#place, expected)));
        this.shardsRepeated = await crew.repeatedShards();
      }
      for (const worker of crew.workers) this.#expectAlive(worker);
    } catch (error) {
      this.problems.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    const left = await crew.dismiss();
    if (left.length > 0) this.problems.push(`processes ${left.join(', ')} were left behind`);
    for (const { kind, point } of this.#due) this.faults.push({ kind, point, victim: undefined });
  }

  async #runCommand(crew: Crew): Promise<void> {
    this.commands += 1;
    if (this.commands > COMMANDS_MAX) {
      this.problems.push(`not finished after ${COMMANDS_MAX} commands`);
      return;
    }
    this.#wasStruck = false;
    // What a person does: the same command again, or the one that the last one named.
    const isAgain = this.commands > 1 && this.commands % 2 === 0;
    const command = crew.run(...(isAgain ? ['resume'] : ['release', this.#place.recipe]));
    const result = await this.#whileRunning(crew, command);
    if (result === undefined) {
      this.problems.push(`not finished in time: ${command.stdout}\n${command.stderr}`);
      command.signal('SIGKILL');
      return;
    }
    this.#judge(result);
    if (!this.#isFinished) {
      this.problems.push(...(await unfinished(this.#options.world, this.#place)));
    }
  }

  /** @returns undefined if it takes far too long */
  async #whileRunning(crew: Crew, command: RunningCommand): Promise<CommandResult | undefined> {
    const { world, drawn } = this.#options;
    for (let fault = this.#due[0]; fault !== undefined; fault = this.#due[0]) {
      if (!(await this.#reaches(fault, command, crew))) break;
      this.#due.shift();
      const { kind, point } = fault;
      const struck = await strike(fault, { world, place: this.#place, crew, command });
      this.faults.push({ kind, point, victim: struck.victim });
      this.problems.push(...struck.problems);
      if (struck.victim === 'command' && kind !== 'freeze') this.#wasStruck = true;
    }
    const tooLate = new AbortController();
    const late = sleep(COMMAND_MS_MAX[drawn.shape], undefined, tooLate);
    const result = await Promise.race([command.ended, late.catch(() => undefined)]);
    tooLate.abort();
    return result;
  }

  /** Waits for the moment of a fault; false if the command has ended before. */
  async #reaches(fault: DrawnFault, command: RunningCommand, crew: Crew): Promise<boolean> {
    const { kind, point, delayMs } = fault;
    const hasEnded = (): boolean =>
      command.child.exitCode !== null || command.child.signalCode !== null;
    const { world, drawn } = this.#options;
    const deadline = Date.now() + COMMAND_MS_MAX[drawn.shape];
    while (!hasEnded() && !(await isReached(point, world, this.#place))) {
      if (Date.now() > deadline) return false;
      await sleep(LOOK_INTERVAL_MS);
    }
    if (!hasEnded()) await Promise.race([command.ended, sleep(delayMs)]);
    // Between two programs there is none to kill.
    while (kind === 'kill-tool' && !hasEnded() && (await crew.tools()).length === 0) {
      if (Date.now() > deadline) return false;
      await sleep(LOOK_INTERVAL_MS);
    }
    return !hasEnded();
  }

  #judge({ status, stdout, stderr }: CommandResult): void {
    const text = `${stdout}\n${stderr}`;
    if (STACK_TRACE.test(text)) this.problems.push(`a stack trace was shown: ${text}`);
    if (status === EXIT.ok) this.#isFinished = true;
    else if (this.#wasStruck) return;
    else if (status === EXIT.waiting) {
      this.stops.push(/^The release waits \(([^)]+)\)/m.exec(stderr)?.[1] ?? 'waiting');
      // What made it wait is mended before anybody goes on.
      this.#options.world.hub.clearFaults();
      this.#options.world.s3.calm();
    } else {
      const code = /^ {2}\[([\w.-]+)\]$/m.exec(stderr)?.[1] ?? '';
      this.stops.push(code);
      const isFull = code === 'disk.full' && this.faults.some(({ kind }) => kind === 'disk-full');
      if (!isFull && !MAY_STOP.test(code)) this.problems.push(`ended with ${status}: ${text}`);
    }
  }

  #expectAlive({ child, stderr, stdout }: RunningCommand): void {
    if (child.exitCode === null && child.signalCode === null) return;
    this.problems.push(`a worker has ended by itself: ${stdout}\n${stderr}`);
  }
}
