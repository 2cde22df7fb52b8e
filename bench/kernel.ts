/**
 * Speed of the merge kernel on one core, without any I/O: `npm run bench:kernel -- [--json]`.
 * `--kernel wasm` measures another one than merges take here.
 *
 * A 4096 x 14336 matrix goes through in bands of 4 MiB, as in a merge; packing is included. f32 is
 * worked out in float64, with half the lanes. What is compared takes turns, so that a machine that
 * slows down slows down all of it. The scalar reference runs on a few rows of the same matrix.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import type {
  ArenaSpec,
  FloatDtype,
  KernelKind,
  KernelModule,
  MergeKernel,
  MergeSegment,
} from '../kernels/index.ts';
import {
  compileKernel,
  createKernel,
  ELEMENT_BYTES,
  packedLeftBytes,
  packedRightBytes,
} from '../kernels/index.ts';
import { storeElement } from '../kernels/reference.ts';

const ROWS = 4096;
const COLS = 14336;
const BAND_BYTES = 4 * 1024 * 1024;
const SCALAR_ROWS = 16;
/** Enough calls for the compiler to take notice. */
const WARM_UP_ROWS = 512;
const RUNS_MIN = 5;
const DTYPES = ['bf16', 'f16', 'f32'] as const;
const RANKS = [8, 16, 64, 256];
/** Several adapters at once: so many, each of this rank. */
const ADAPTERS = 3;
const ADAPTER_RANK = 16;

/** One way to merge the matrix. */
interface Contestant {
  readonly name: string;
  readonly dtype: FloatDtype;
  /** Of each segment of one pass. */
  readonly ranks: readonly number[];
  readonly passes: number;
}

interface Figure {
  readonly name: string;
  readonly dtype: FloatDtype;
  /** Of all segments and passes. */
  readonly rank: number;
  readonly seconds: readonly number[];
  readonly secondsMedian: number;
  readonly gigaflopsMedian: number;
  readonly gigaflopsBest: number;
  /** Of weights read, in the median run. */
  readonly gigabytesPerSecond: number;
}

/** Fills with values of about a weight's distribution: the sum of uniforms, deviation 0.02. */
function fillWeights(bytes: Uint8Array, dtype: FloatDtype, seed: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let state = seed;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 8) / 2 ** 24 - 0.5;
  };
  for (let at = 0; at < bytes.length; at += ELEMENT_BYTES[dtype]) {
    storeElement(view, at, dtype, 0.035 * (uniform() + uniform() + uniform() + uniform()));
  }
}

function arenaFor(rows: number, rank: number, dtype: FloatDtype): ArenaSpec {
  return {
    inputBytesMax: rows * COLS * ELEMENT_BYTES[dtype],
    outputBytesMax: 0,
    factorBytesMax: Math.max(rows, COLS) * rank * ELEMENT_BYTES[dtype],
    leftBytesMax: packedLeftBytes(rows, rank),
    rightBytesMax: packedRightBytes(COLS, rank),
  };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);

const median = (numbers: readonly number[]): number =>
  [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;

/** A contestant with its memory filled. */
class Runner {
  readonly contestant: Contestant;
  readonly seconds: number[] = [];
  readonly #kernel: MergeKernel;
  readonly #segments: readonly MergeSegment[];
  readonly #rank: number;
  readonly #bandRows: number;

  constructor(module: KernelModule, contestant: Contestant, rowsMax = ROWS) {
    const { dtype, ranks } = contestant;
    const wholeQuads = Math.floor(BAND_BYTES / (COLS * ELEMENT_BYTES[dtype]) / 4) * 4;
    this.contestant = contestant;
    // In place and over again: a small scale keeps the weights in their range.
    this.#segments = ranks.map((rank) => ({ rank, scale: 2 ** -6 }));
    this.#rank = sum(ranks);
    this.#bandRows = Math.min(rowsMax, wholeQuads);
    this.#kernel = createKernel(module, arenaFor(this.#bandRows, this.#rank, dtype));
    fillWeights(this.#kernel.input, dtype, 1);
    fillWeights(this.#kernel.factor, dtype, 2);
  }

  /** @returns seconds */
  run(totalRows: number): number {
    const { dtype, passes } = this.contestant;
    const started = performance.now();
    for (let pass = 0; pass < passes; pass++) {
      this.#kernel.packRight(this.#rank, COLS, { dtype, rankStride: COLS, laneStride: 1 });
      for (let row = 0; row < totalRows; row += this.#bandRows) {
        const rows = Math.min(this.#bandRows, totalRows - row);
        const block = { dtype, rankStride: 1, laneStride: this.#rank };
        this.#kernel.packLeft(rows, this.#rank, block);
        this.#kernel.merge({ segments: this.#segments, dtypeIn: dtype, dtypeOut: dtype });
      }
    }
    return (performance.now() - started) / 1000;
  }

  figure(): Figure {
    const { name, dtype, passes } = this.contestant;
    const rank = this.#rank * passes;
    const gigaflop = (2 * ROWS * COLS * rank) / 1e9;
    const secondsMedian = median(this.seconds);
    return {
      name,
      dtype,
      rank,
      seconds: this.seconds,
      secondsMedian,
      gigaflopsMedian: gigaflop / secondsMedian,
      gigaflopsBest: gigaflop / Math.min(...this.seconds),
      gigabytesPerSecond: (ROWS * COLS * ELEMENT_BYTES[dtype]) / secondsMedian / 1e9,
    };
  }
}

/** Runs the contestants in turns. */
function compare(module: KernelModule, contestants: readonly Contestant[], runs: number): Figure[] {
  const runners = contestants.map((contestant) => new Runner(module, contestant));
  for (const runner of runners) runner.run(WARM_UP_ROWS);
  for (let run = 0; run < runs; run++) {
    for (const runner of runners) runner.seconds.push(runner.run(ROWS));
  }
  return runners.map((runner) => runner.figure());
}

/** Median over the runs of the times' ratio within a run. */
function ratioOf(a: Figure, b: Figure): number {
  return median(a.seconds.map((seconds, run) => seconds / (b.seconds[run] ?? Number.NaN)));
}

/** How many times faster than the scalar reference. */
function timesScalar(figure: Figure): number {
  const { name, dtype, rank } = figure;
  const runner = new Runner(
    { kind: 'scalar' },
    { name, dtype, ranks: [rank], passes: 1 },
    SCALAR_ROWS,
  );
  return (runner.run(SCALAR_ROWS) / SCALAR_ROWS) * (ROWS / figure.secondsMedian);
}

function adapterContestants(): Contestant[] {
  const each = Array<number>(ADAPTERS).fill(ADAPTER_RANK);
  const total = ADAPTERS * ADAPTER_RANK;
  const times = `${ADAPTERS} x r${ADAPTER_RANK}`;
  return [
    { name: `${times}, one pass`, dtype: 'bf16', ranks: each, passes: 1 },
    { name: `1 x r${total}`, dtype: 'bf16', ranks: [total], passes: 1 },
    {
      name: `${times}, ${ADAPTERS} passes`,
      dtype: 'bf16',
      ranks: [ADAPTER_RANK],
      passes: ADAPTERS,
    },
  ];
}

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: String(RUNS_MIN) },
    json: { type: 'boolean', default: false },
    kernel: { type: 'string' },
  },
});
const runs = Math.max(RUNS_MIN, Number(values.runs));
const print = values.json ? (): void => undefined : console.log;
const module = await compileKernel(
  values.kernel === undefined ? {} : { kind: values.kernel as KernelKind },
);
const machine = `${cpus()[0]?.model ?? 'unknown processor'}, Node ${process.version}, ${module.kind}`;

print(machine);
print('dtype   rank  GFLOP/s    best   GB/s  × scalar');
const figures: (Figure & { readonly timesScalar: number })[] = [];
const ratios: { readonly rank: number; readonly f16ToBf16: number }[] = [];
for (const rank of RANKS) {
  const group = DTYPES.map((dtype) => ({ name: dtype, dtype, ranks: [rank], passes: 1 }));
  const [bf16, f16, f32] = compare(module, group, runs) as [Figure, Figure, Figure];
  for (const figure of [bf16, f16, f32]) {
    const row = { ...figure, timesScalar: timesScalar(figure) };
    figures.push(row);
    const cells = [
      figure.dtype.padEnd(5),
      String(rank).padStart(6),
      figure.gigaflopsMedian.toFixed(1).padStart(8),
      figure.gigaflopsBest.toFixed(1).padStart(7),
      figure.gigabytesPerSecond.toFixed(2).padStart(6),
      row.timesScalar.toFixed(0).padStart(9),
    ];
    print(cells.join(' '));
  }
  ratios.push({ rank, f16ToBf16: ratioOf(f16, bf16) });
  print(`f16 takes ${ratioOf(f16, bf16).toFixed(2)} times as long as bf16 at rank ${rank}`);
}

print('\nadapters               GFLOP/s    best      ms  × one pass');
const adapters = compare(module, adapterContestants(), runs);
for (const figure of adapters) {
  const cells = [
    figure.name.padEnd(20),
    figure.gigaflopsMedian.toFixed(1).padStart(9),
    figure.gigaflopsBest.toFixed(1).padStart(7),
    (figure.secondsMedian * 1000).toFixed(0).padStart(7),
    ratioOf(figure, adapters[0] as Figure)
      .toFixed(2)
      .padStart(11),
  ];
  print(cells.join(' '));
}
if (values.json) console.log(JSON.stringify({ machine, runs, figures, ratios, adapters }, null, 2));
