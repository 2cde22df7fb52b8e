/**
 * Speed and memory of a merge, side by side with a plain copy and with PEFT, in one run.
 *
 *     npm run build
 *     npm run bench -- [--size 2.2GB] [--rank 16] [--rounds 3] [--peft-rounds 1] [--threads N]
 *
 * Results go to bench/results/. Ratios are what to look at: times depend on the machine and on
 * what else it does. The checkpoint is made once and kept in bench/data/ (ignored by git).
 */
import { existsSync } from 'node:fs';
import { mkdir, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { formatBytes } from '../cli/format.ts';
import { parseSize } from '../config/parse-size.ts';
import {
  CLI,
  type Contestant,
  copyContestant,
  peftContestant,
  planSeconds,
  warmInputs,
  weldlineContestant,
} from './contestants.ts';
import { describeMachine, loadAverage } from './machine.ts';
import {
  BASE_KNOWN,
  BASE_NEW,
  formatResults,
  type MergeResults,
  type Round,
} from './merge-report.ts';
import { type BenchModel, layersFor, makeModel } from './model-data.ts';

const DATA = fileURLToPath(new URL('data/', import.meta.url));
const RESULTS = fileURLToPath(new URL('results/', import.meta.url));
const ORACLE_PYTHON = fileURLToPath(new URL('../.oracle/bin/python', import.meta.url));

/** Everything that a run makes and the next one must not find. */
const SCRATCH = join(DATA, 'scratch');
const HOME = join(SCRATCH, 'home');

/** Adapter, journals, and what else writes to the disk meanwhile. */
const FREE_BYTES_RESERVE = 1_000_000_000;

const PEFT_MISSING =
  'No PEFT: its environment is not set up. `npm run setup:oracle` makes it (about 2 GB).';

interface Settings {
  readonly layers: number;
  readonly sizeBytes: number;
  readonly rank: number;
  readonly rounds: number;
  readonly peftRounds: number;
  readonly threads?: string | undefined;
}

function readSettings(): Settings {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '2.2GB' },
      rank: { type: 'string', default: '16' },
      rounds: { type: 'string', default: '3' },
      'peft-rounds': { type: 'string', default: '1' },
      threads: { type: 'string' },
    },
  });
  const count = (name: 'rank' | 'rounds' | 'peft-rounds', min: number): number => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= min) return value;
    throw new Error(`--${name} ${values[name]} is not a whole number of at least ${min}.`);
  };
  const sizeBytes = parseSize(values.size);
  const rounds = count('rounds', 1);
  return {
    layers: layersFor(sizeBytes),
    sizeBytes,
    rank: count('rank', 1),
    rounds,
    peftRounds: Math.min(rounds, count('peft-rounds', 0)),
    threads: values.threads,
  };
}

async function checkFreeSpace(sizeBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(DATA);
  // The inputs and one output at a time.
  const needed = 2 * sizeBytes + FREE_BYTES_RESERVE;
  if (bavail * bsize >= needed) return;
  throw new Error(
    `${DATA} has ${formatBytes(bavail * bsize)} free and the run needs ${formatBytes(needed)}. ` +
      'Free some space, or choose a smaller --size.',
  );
}

async function runRounds(
  model: BenchModel,
  settings: Settings,
  signal: AbortSignal,
): Promise<Record<string, Round[]>> {
  const { rounds, peftRounds, threads } = settings;
  const always = [
    copyContestant(model),
    weldlineContestant(BASE_NEW, model, HOME, { fresh: true, threads }),
    weldlineContestant(BASE_KNOWN, model, HOME, { fresh: false, threads }),
  ];
  const peft = peftContestant(model, ORACLE_PYTHON);
  const measurements: Record<string, Round[]> = {};
  for (let round = 0; round < rounds; round++) {
    const field = round < peftRounds && existsSync(ORACLE_PYTHON) ? [...always, peft] : always;
    // Whatever a run leaves behind in caches must not always be the same one's advantage.
    const order = round % 2 === 0 ? field : field.toReversed();
    for (const contestant of order) {
      const measurement = await runOne(contestant, model, signal);
      measurements[contestant.name] ??= [];
      measurements[contestant.name]?.push({ round, ...measurement });
      console.log(
        `round ${round + 1}: ${contestant.name.padEnd(28)} ${measurement.seconds.toFixed(2)} s, ` +
          `${formatBytes(measurement.peakMemoryBytes)}, load ${loadAverage().toFixed(1)}`,
      );
    }
  }
  return measurements;
}

async function runOne(contestant: Contestant, model: BenchModel, signal: AbortSignal) {
  const output = join(SCRATCH, 'output');
  await rm(output, { recursive: true, force: true });
  await warmInputs(model, signal);
  try {
    return await contestant.run(output, signal);
  } finally {
    await rm(output, { recursive: true, force: true });
  }
}

async function main(signal: AbortSignal): Promise<void> {
  const settings = readSettings();
  const { layers, rank, rounds } = settings;
  if (!existsSync(CLI)) throw new Error(`${CLI} is not there; make it with npm run build.`);
  await mkdir(SCRATCH, { recursive: true });
  try {
    await checkFreeSpace(settings.sizeBytes);
    const hasPeft = existsSync(ORACLE_PYTHON);
    if (!hasPeft && settings.peftRounds > 0) console.log(PEFT_MISSING);
    console.log(`making or finding the checkpoint (${layers} layers) in ${DATA}`);
    const model = await makeModel(DATA, layers, rank, signal);
    const loadBefore = loadAverage();
    const measurements = await runRounds(model, settings, signal);
    const results: MergeResults = {
      date: new Date().toISOString().slice(0, 10),
      weightBytes: model.weightBytes,
      layers,
      rank,
      rounds,
      machine: describeMachine(DATA, hasPeft ? ORACLE_PYTHON : undefined),
      loadBefore,
      loadAfter: loadAverage(),
      planSeconds: await planSeconds(model, HOME, signal),
      measurements,
      peftMissing: hasPeft || settings.peftRounds === 0 ? undefined : PEFT_MISSING,
    };
    await writeResults(results);
  } finally {
    await rm(SCRATCH, { recursive: true, force: true });
  }
}

async function writeResults(results: MergeResults): Promise<void> {
  const text = formatResults(results);
  const size = `${(results.weightBytes / 1e9).toFixed(1)}GB`;
  const path = join(RESULTS, `merge-${results.date}-${size}-r${results.rank}`);
  await mkdir(RESULTS, { recursive: true });
  await writeFile(`${path}.json`, `${JSON.stringify(results, null, 2)}\n`);
  await writeFile(`${path}.md`, text);
  console.log(`\n${text}\nwrote ${path}.md and .json`);
}

const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () =>
    interruption.abort(new Error('Stopped; what was half done is removed.')),
  );
}
try {
  await main(interruption.signal);
} catch (error) {
  const reason: unknown = interruption.signal.aborted ? interruption.signal.reason : error;
  console.error(reason instanceof Error ? reason.message : reason);
  process.exitCode = interruption.signal.aborted ? 130 : 1;
}
