/**
 * Speed and memory beside a plain copy, PEFT and mergekit, on the same files in one run.
 *
 *     npm run bench -- [--only CASE,...] [--rounds 5] [--size 2.2GB] [--list]
 *
 * Results go to bench/results/: a table of targets, each hit, missed or not measured, and the
 * measurements behind it. Ratios are what to look at: times depend on the machine and on what else
 * it does. Checkpoints are made once and kept in bench/data/ (ignored by git, about 7 GB).
 */
import { execFileSync } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { parseSize } from '../config/parse-size.ts';
import { CASES, type Case } from './cases.ts';
import { describeMachine } from './machine.ts';
import { findEviction } from './page-cache.ts';
import { type BenchResults, formatResults } from './report.ts';
import { type CaseResult, runCase } from './run-case.ts';

const DATA = fileURLToPath(new URL('data/', import.meta.url));
const RESULTS = fileURLToPath(new URL('results/', import.meta.url));
const BUILD = fileURLToPath(new URL('../scripts/build.ts', import.meta.url));

/** Everything that a run makes and the next one must not find. */
const SCRATCH = join(DATA, 'scratch');

const SIZE_DEFAULT = '2.2GB';

interface Settings {
  readonly cases: readonly Case[];
  readonly rounds: number;
  readonly modelBytes: number;
  readonly list: boolean;
  /** Of the files of results: a run of a part must not replace a whole one. */
  readonly resultName: string;
}

function readSettings(): Settings {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      rounds: { type: 'string', default: '5' },
      size: { type: 'string', default: SIZE_DEFAULT },
      list: { type: 'boolean', default: false },
    },
  });
  const { only, size, list } = values;
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1) {
    throw new Error(`--rounds ${values.rounds} is not a whole number of at least 1.`);
  }
  const ids = only?.split(',') ?? CASES.map(({ id }) => id);
  const unknown = ids.find((id) => !CASES.some((benchCase) => benchCase.id === id));
  if (unknown !== undefined) {
    throw new Error(`--only ${unknown}: there is no such case; --list shows them.`);
  }
  return {
    cases: CASES.filter(({ id }) => ids.includes(id)),
    rounds,
    modelBytes: parseSize(size),
    list,
    resultName: [
      new Date().toISOString().slice(0, 10),
      ...(size === SIZE_DEFAULT ? [] : [size]),
      ...(only === undefined ? [] : ids),
    ].join('-'),
  };
}

async function run(settings: Settings, signal: AbortSignal): Promise<number> {
  const { rounds, modelBytes } = settings;
  // A package of older sources would be measured, and taken for the present ones.
  execFileSync(process.execPath, [BUILD], { stdio: 'inherit' });
  await rm(SCRATCH, { recursive: true, force: true });
  await mkdir(SCRATCH, { recursive: true });
  const eviction = findEviction();
  const cases: CaseResult[] = [];
  try {
    const context = { modelBytes, data: DATA, scratch: SCRATCH, signal };
    for (const benchCase of settings.cases) {
      cases.push(await runCase(benchCase, context, { rounds, eviction }));
    }
  } finally {
    await rm(SCRATCH, { recursive: true, force: true });
  }
  await writeResults(settings.resultName, {
    date: new Date().toISOString(),
    modelBytes,
    rounds,
    machine: describeMachine(DATA),
    eviction: eviction?.name,
    cases,
  });
  const missed = cases.some(({ verdicts }) => verdicts.some(({ outcome }) => outcome !== 'hit'));
  return missed ? 1 : 0;
}

async function writeResults(name: string, results: BenchResults): Promise<void> {
  const text = formatResults(results);
  const path = join(RESULTS, name);
  await mkdir(RESULTS, { recursive: true });
  await writeFile(`${path}.json`, `${JSON.stringify(results, null, 2)}\n`);
  await writeFile(`${path}.md`, text);
  console.log(`\n${text}\nwrote ${path}.md and .json`);
}

async function main(signal: AbortSignal): Promise<number> {
  const settings = readSettings();
  if (!settings.list) return run(settings, signal);
  for (const { id, title } of CASES) console.log(`${id.padEnd(16)}${title}`);
  return 0;
}

const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () =>
    interruption.abort(new Error('Stopped; what was half done is removed.')),
  );
}
try {
  process.exitCode = await main(interruption.signal);
} catch (error) {
  const reason: unknown = interruption.signal.aborted ? interruption.signal.reason : error;
  console.error(reason instanceof Error ? reason.message : reason);
  process.exitCode = interruption.signal.aborted ? 130 : 1;
}
