/**
 * Releases that are cut off again and again, as a user would have it happen, and gone on with:
 *
 *     npm run soak -- --rounds 200 --seed 1
 *     npm run soak -- --seed 1 --only 17                 one round of that seed again
 *     npm run soak -- --faults kill-worker,freeze --shapes merge
 *
 * Each round is the whole pipeline of a small real model: fetched from a hub, merged, converted in some
 * of them, published to a directory and a bucket. Ends with 1 at the first round that goes wrong, and
 * keeps its directory.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Random } from '../test/doubles/random.ts';
import { type Bytes, publishedBytes } from '../test/soak/check-round.ts';
import { drawRound, FAULT_KINDS, type FaultKind } from '../test/soak/draw-round.ts';
import { type RoundOutcome, runRound } from '../test/soak/run-round.ts';
import { soakTable } from '../test/soak/soak-table.ts';
import { SHAPES, type Shape, type SoakWorld, startSoakWorld } from '../test/soak/soak-world.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
    faults: { type: 'string', default: FAULT_KINDS.join(',') },
    shapes: { type: 'string', default: SHAPES.join(',') },
    directory: { type: 'string' },
    'keep-going': { type: 'boolean', default: false },
  },
});

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

/** Rounds of a seed do not depend on how many come before: one alone is the same again. */
function randomOf(seed: number, round: number): Random {
  const random = new Random(seed * 100_003 + round * 7_919 + 1);
  for (let each = 0; each < 8; each++) random.next();
  return random;
}

function describe({ drawn, faults, stops, ms }: RoundOutcome): string {
  const told = faults.map(({ kind, point, victim }) =>
    victim === undefined ? `(${kind} at ${point})` : `${kind} at ${point}: ${victim}`,
  );
  const stopped = stops.length === 0 ? '' : `; stopped: ${stops.join(', ')}`;
  const seconds = (ms / 1000).toFixed(0);
  return `${drawn.shape}, ${drawn.mode}, ${seconds} s; ${told.join('; ') || 'undisturbed'}${stopped}`;
}

class Soak {
  readonly #world: SoakWorld;
  readonly #expected = new Map<Shape, Bytes>();
  readonly #kinds: readonly FaultKind[];
  readonly #shapes: readonly Shape[];
  readonly outcomes: RoundOutcome[] = [];

  constructor(world: SoakWorld, kinds: readonly FaultKind[], shapes: readonly Shape[]) {
    this.#world = world;
    this.#kinds = kinds;
    this.#shapes = shapes;
  }

  /** @returns whether it went well */
  async round(seed: number, round: number): Promise<boolean> {
    const drawn = drawRound(randomOf(seed, round), this.#kinds, this.#shapes);
    const expected = await this.#bytesOf(drawn.shape);
    const name = `round-${round}`;
    const outcome = await runRound({ world: this.#world, name, drawn, expected });
    this.outcomes.push(outcome);
    console.log(`${name}: ${describe(outcome)}`);
    for (const problem of outcome.problems) console.log(`  WRONG: ${problem}`);
    if (outcome.problems.length === 0) return true;
    console.log(`  seed ${seed}, round ${round}; kept in ${outcome.directory}`);
    return false;
  }

  async #bytesOf(shape: Shape): Promise<Bytes> {
    const known = this.#expected.get(shape);
    if (known !== undefined) return known;
    let bytes: Bytes = new Map();
    const outcome = await runRound({
      world: this.#world,
      name: `undisturbed-${shape}`,
      drawn: { shape, mode: 'alone', faults: [] },
      expected: undefined,
      onPublished: async (place) => {
        bytes = await publishedBytes(place);
      },
    });
    if (outcome.problems.length > 0) throw new Error(outcome.problems.join('\n'));
    console.log(`${describe(outcome)}; ${bytes.size} files to compare with`);
    this.#expected.set(shape, bytes);
    return bytes;
  }
}

async function main(): Promise<number> {
  const seed = wholeNumber('seed', values.seed);
  const kinds = someOf('faults', values.faults, FAULT_KINDS);
  const shapes = someOf('shapes', values.shapes, SHAPES);
  const only = values.only === undefined ? undefined : wholeNumber('only', values.only);
  const rounds =
    only === undefined
      ? Array.from({ length: wholeNumber('rounds', values.rounds) }, (_, index) => index + 1)
      : [only];
  const directory = values.directory ?? mkdtempSync(join(tmpdir(), 'weldline-soak-'));
  mkdirSync(directory, { recursive: true });
  const world = await startSoakWorld(directory, [process.execPath, MAIN]);
  const soak = new Soak(world, kinds, shapes);
  let failed = 0;
  try {
    for (const round of rounds) {
      if (await soak.round(seed, round)) continue;
      failed += 1;
      if (!values['keep-going']) break;
    }
  } finally {
    await world.close();
  }
  console.log(`\nSeed ${seed}, ${soak.outcomes.length} rounds, ${failed} wrong.\n`);
  console.log(soakTable(soak.outcomes));
  if (failed === 0) rmSync(directory, { recursive: true, force: true });
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main();
