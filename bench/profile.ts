/**
 * Where the processors' time of a merge goes, per GB of the checkpoint: the same merge with all of
 * its parts and without some, in turns, in the page cache.
 *
 *     node bench/profile.ts [--rounds 5] [--size 2.2GB]
 *
 * A part is the difference of two medians, so parts of a few hundredths are noise.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { parseSize } from '../config/parse-size.ts';
import type { KernelKind } from '../kernels/index.ts';
import type { EngineRun } from './merge-engine.ts';
import { makeModel } from './model-data.ts';
import { prepareCache } from './page-cache.ts';
import { formatMarkdownTable } from './report.ts';
import { runProcess } from './run-process.ts';
import { median, shuffled } from './statistics.ts';

const DATA = fileURLToPath(new URL('data/', import.meta.url));
const ENGINE = fileURLToPath(new URL('merge-engine.ts', import.meta.url));
const OUTPUT = join(DATA, 'profile-output');
const RANKS = [16, 64];
const KERNELS: readonly KernelKind[] = ['native', 'wasm'];

interface Variant {
  readonly mode: 'hashed' | 'unhashed' | 'copied';
  readonly rank: number;
  readonly kernel: KernelKind;
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    size: { type: 'string', default: '2.2GB' },
  },
});
const { signal } = new AbortController();
await mkdir(DATA, { recursive: true });
const spec = { bytes: parseSize(values.size), targets: 'all-linear' } as const;
const models = new Map(
  await Promise.all(
    RANKS.map(async (rank) => [rank, await makeModel(DATA, { ...spec, rank }, signal)] as const),
  ),
);

const copied: Variant = { mode: 'copied', rank: 16, kernel: 'native' };
const hashed: Variant = { mode: 'hashed', rank: 16, kernel: 'native' };
const unhashed = KERNELS.flatMap((kernel) =>
  RANKS.map((rank): Variant => ({ mode: 'unhashed', rank, kernel })),
);
const runs = new Map<Variant, EngineRun[]>();
for (let round = 0; round < Number(values.rounds); round++) {
  for (const variant of shuffled([copied, hashed, ...unhashed], Math.random)) {
    runs.set(variant, [...(runs.get(variant) ?? []), await runOnce(variant)]);
  }
}
await rm(OUTPUT, { recursive: true, force: true });

async function runOnce({ mode, rank, kernel }: Variant): Promise<EngineRun> {
  const model = models.get(rank);
  if (model === undefined) throw new Error(`no model of rank ${rank}`);
  await rm(OUTPUT, { recursive: true, force: true });
  await prepareCache('warm', [model.base, model.adapter], undefined, signal);
  const args = [ENGINE, mode, model.base, model.adapter, OUTPUT, kernel];
  const { stdout } = await runProcess(process.execPath, args, { signal });
  return JSON.parse(stdout) as EngineRun;
}

/** Median over the rounds, per GB. */
function perGigabyte(variant: Variant, value: (run: EngineRun) => number): number {
  const gigabytes = (models.get(variant.rank)?.weightBytes ?? Number.NaN) / 1e9;
  return median((runs.get(variant) ?? []).map(value)) / gigabytes;
}

const user = (variant: Variant): number => perGigabyte(variant, (run) => run.userSeconds);
const reference = unhashed.find(({ rank, kernel }) => rank === 16 && kernel === 'native');
const rows: [string, number][] = [
  ['reading and writing, by the system', perGigabyte(copied, (run) => run.systemSeconds)],
  ['starting threads, cutting windows', user(copied)],
  [
    'SHA-256 of the output',
    user(hashed) - (reference === undefined ? Number.NaN : user(reference)),
  ],
  ...unhashed.map((variant): [string, number] => [
    `packing factors and arithmetic, r = ${variant.rank}, ${variant.kernel}`,
    user(variant) - user(copied),
  ]),
];
console.log(
  formatMarkdownTable([
    ['processor seconds per GB', ''],
    ...rows.map(([name, seconds]) => [name, seconds.toFixed(2)]),
  ]),
);
