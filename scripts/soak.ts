/**
 * Releases that are cut off again and again, as a user would have it happen, and gone on with:
 *
 *     npm run soak -- --rounds 200 --seed 1
 *     npm run soak -- --seed 1 --only 17                 one round of that seed again
 *     npm run soak -- --seed 1 --from 57 --rounds 144    the rest of one that was stopped
 *     npm run soak -- --faults kill-worker,freeze --shapes merge
 *     npm run soak -- --jobs 3 --keep-going              rounds side by side: most of one is waiting
 *     npm run soak -- --queued 50                        releases at once on two workers, nothing else
 *
 * Each round is the whole pipeline of a small real model: fetched from a hub, merged, converted in some
 * of them, published to a directory and a bucket. Ends with 1 at the first round that goes wrong, and
 * keeps its directory.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { setUpRelease } from '../test/harness/release-setup.ts';
import { startTestServer } from '../test/harness/temporal-server.ts';
import { WorkerProcess } from '../test/harness/worker-process.ts';
import { type Bytes, publishedBytes } from '../test/soak/check-round.ts';
import { drawRound, FAULT_KINDS, roundRandom } from '../test/soak/draw-round.ts';
import { queueReleases } from '../test/soak/queued-releases.ts';
import { type RoundOutcome, runRound } from '../test/soak/run-round.ts';
import { soakTable } from '../test/soak/soak-table.ts';
import { SHAPES, type Shape, type SoakWorld, startSoakWorld } from '../test/soak/soak-world.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    from: { type: 'string', default: '1' },
    only: { type: 'string' },
    faults: { type: 'string', default: FAULT_KINDS.join(',') },
    shapes: { type: 'string', default: SHAPES.join(',') },
    jobs: { type: 'string', default: '1' },
    directory: { type: 'string' },
    queued: { type: 'string' },
    'keep-going': { type: 'boolean', default: false },
  },
});

const TABLE_EVERY = 20;
const MAIN = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

function wholeNumber(name: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new Error(`--${name} is "${text}"; it must be a whole number`);
}

function someOf<T extends string>(name: string, text: string, known: readonly T[]): readonly T[] {
  const wanted = text.split(',');
  const unknown = wanted.filter((each) => !(known as readonly string[]).includes(each));
  if (unknown.length === 0) return wanted as T[];
  throw new Error(`--${name} has ${unknown.join(', ')}; known are ${known.join(', ')}`);
}

function describe({ drawn, faults, stops, ms }: RoundOutcome): string {
  const told = faults.map(({ kind, point, victim }) =>
    victim === undefined ? `(${kind} at ${point})` : `${kind} at ${point}: ${victim}`,
  );
  const stopped = stops.length === 0 ? '' : `; stopped: ${stops.join(', ')}`;
  const seconds = (ms / 1000).toFixed(0);
  return `${drawn.shape}, ${drawn.mode}, ${seconds} s; ${told.join('; ') || 'undisturbed'}${stopped}`;
}

/** The rounds of a seed, done side by side by as many as are asked for, each in a world of its own. */
class Soak {
  readonly #seed: number;
  readonly #rounds: number[];
  readonly #expected = new Map<Shape, Promise<Bytes>>();
  readonly outcomes: RoundOutcome[] = [];
  failed = 0;

  constructor(seed: number, rounds: readonly number[]) {
    this.#seed = seed;
    this.#rounds = [...rounds];
  }

  async work(directory: string): Promise<void> {
    const world = await startSoakWorld(directory, [process.execPath, MAIN]);
    try {
      for (let round = this.#rounds.shift(); round !== undefined; round = this.#rounds.shift()) {
        if (await this.#round(world, round)) continue;
        this.failed += 1;
        if (!values['keep-going']) this.#rounds.length = 0;
      }
    } finally {
      await world.close();
    }
  }

  /** @returns whether it went well */
  async #round(world: SoakWorld, round: number): Promise<boolean> {
    const drawn = drawRound(roundRandom(this.#seed, round), kinds, shapes);
    const expected = await this.#bytesOf(world, drawn.shape);
    const name = `round-${round}`;
    const outcome = await runRound({ world, name, drawn, expected });
    this.outcomes.push(outcome);
    console.log(`${name}: ${describe(outcome)}`);
    // A soak that is stopped has told what it came to.
    if (this.outcomes.length % TABLE_EVERY === 0) console.log(`\n${soakTable(this.outcomes)}\n`);
    for (const problem of outcome.problems) console.log(`  WRONG: ${problem}`);
    if (outcome.problems.length === 0) return true;
    console.log(`  seed ${this.#seed}, round ${round}; kept in ${outcome.directory}`);
    return false;
  }

  #bytesOf(world: SoakWorld, shape: Shape): Promise<Bytes> {
    const bytes = this.#expected.get(shape) ?? undisturbed(world, shape);
    this.#expected.set(shape, bytes);
    return bytes;
  }
}

async function undisturbed(world: SoakWorld, shape: Shape): Promise<Bytes> {
  let bytes: Bytes = new Map();
  const outcome = await runRound({
    world,
    name: `undisturbed-${shape}`,
    drawn: { shape, mode: 'alone', faults: [] },
    expected: undefined,
    onPublished: async (place) => {
      bytes = await publishedBytes(place);
    },
  });
  if (outcome.problems.length > 0) throw new Error(outcome.problems.join('\n'));
  console.log(`${describe(outcome)}; ${bytes.size} files to compare with`);
  return bytes;
}

const kinds = someOf('faults', values.faults, FAULT_KINDS);
const shapes = someOf('shapes', values.shapes, SHAPES);

/** Releases of one small model, all at once. @returns exit status */
async function queued(count: number): Promise<number> {
  const server = await startTestServer();
  const setup = await setUpRelease(join(server.directory, 'queued'));
  const workers = [0, 1].map(() => new WorkerProcess(server, setup.variables));
  try {
    await Promise.all(workers.map((worker) => worker.ready()));
    const startedAt = performance.now();
    const releases = await queueReleases(server, setup, count);
    const seconds = (performance.now() - startedAt) / 1000;
    const once = releases.filter(({ published, existed }) => published.length === 2 && !existed);
    const kinds = new Set(releases.map(({ digests }) => JSON.stringify([...digests])));
    console.log(
      `${count} releases queued at once on two workers: ${once.length} published once each, ` +
        `${kinds.size} kind(s) of bytes, ${seconds.toFixed(0)} s`,
    );
    return once.length === count && kinds.size === 1 ? 0 : 1;
  } finally {
    await Promise.all(workers.map((worker) => worker.kill()));
    await server.stop();
  }
}

async function main(): Promise<number> {
  if (values.queued !== undefined) return queued(wholeNumber('queued', values.queued));
  const seed = wholeNumber('seed', values.seed);
  const count = wholeNumber('rounds', values.rounds);
  const first = wholeNumber('from', values.from);
  const rounds =
    values.only === undefined
      ? Array.from({ length: count }, (_, index) => first + index)
      : [wholeNumber('only', values.only)];
  const directory = values.directory ?? mkdtempSync(join(tmpdir(), 'weldline-soak-'));
  const soak = new Soak(seed, rounds);
  const jobs = Array.from({ length: wholeNumber('jobs', values.jobs) }, (_, job) =>
    soak.work(join(directory, `job-${job + 1}`)),
  );
  await Promise.all(jobs);
  const { outcomes, failed } = soak;
  console.log(`\nSeed ${seed}, ${outcomes.length} rounds, ${failed} wrong.\n`);
  console.log(soakTable(outcomes));
  if (failed === 0) rmSync(directory, { recursive: true, force: true });
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main();
