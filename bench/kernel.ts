/**
 * Speed of the merge kernel on one core, without any I/O: `node bench/kernel.ts`; the one that
 * merges take, or `--kernel native`, `wasm`.
 *
 * A 4096 x 14336 matrix goes through in bands of 4 MiB, as in a merge; packing is included. f32 is
 * worked out in float64, with half the lanes. The scalar reference runs on a few rows of the same
 * matrix.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import type {
  ArenaSpec,
  FloatDtype,
  KernelKind,
  KernelModule,
  MergeKernel,
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
const REFERENCE_ROWS = 16;
const RANKS = [8, 16, 64, 256];

interface Figure {
  readonly gigaflops: number;
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

function runMatrix(
  kernel: MergeKernel,
  totalRows: number,
  bandRows: number,
  rank: number,
  dtype: FloatDtype,
): number {
  const started = performance.now();
  kernel.packRight(rank, COLS, { dtype, rankStride: COLS, laneStride: 1 });
  for (let row = 0; row < totalRows; row += bandRows) {
    const rows = Math.min(bandRows, totalRows - row);
    kernel.packLeft(rows, rank, { dtype, rankStride: 1, laneStride: rank });
    // In place and over again: a small scale keeps the weights in their range.
    kernel.merge({ segments: [{ rank, scale: 2 ** -6 }], dtypeIn: dtype, dtypeOut: dtype });
  }
  return (performance.now() - started) / 1000;
}

function measure(
  module: KernelModule,
  totalRows: number,
  rank: number,
  dtype: FloatDtype,
  runs: number,
): Figure {
  const wholeQuads = Math.floor(BAND_BYTES / (COLS * ELEMENT_BYTES[dtype]) / 4) * 4;
  const bandRows = Math.min(totalRows, wholeQuads);
  const kernel = createKernel(module, arenaFor(bandRows, rank, dtype));
  fillWeights(kernel.input, dtype, 1);
  fillWeights(kernel.factor, dtype, 2);
  let best = Number.POSITIVE_INFINITY;
  for (let run = 0; run < runs; run++) {
    best = Math.min(best, runMatrix(kernel, totalRows, bandRows, rank, dtype));
  }
  const elements = totalRows * COLS;
  return {
    gigaflops: (2 * elements * rank) / best / 1e9,
    gigabytesPerSecond: (elements * ELEMENT_BYTES[dtype]) / best / 1e9,
  };
}

const { values } = parseArgs({
  options: { runs: { type: 'string', default: '3' }, kernel: { type: 'string' } },
});
const module = await compileKernel(
  values.kernel === undefined ? {} : { kind: values.kernel as KernelKind },
);
console.log(`${cpus()[0]?.model ?? 'unknown processor'}, Node ${process.version}, ${module.kind}`);
console.log('dtype   rank  GFLOP/s   GB/s  × scalar');
for (const dtype of ['bf16', 'f16', 'f32'] as const) {
  for (const rank of RANKS) {
    const figure = measure(module, ROWS, rank, dtype, Number(values.runs));
    const scalar = measure({ kind: 'scalar' }, REFERENCE_ROWS, rank, dtype, Number(values.runs));
    const cells = [
      dtype.padEnd(5),
      String(rank).padStart(6),
      figure.gigaflops.toFixed(1).padStart(8),
      figure.gigabytesPerSecond.toFixed(2).padStart(6),
      (figure.gigaflops / scalar.gigaflops).toFixed(0).padStart(9),
    ];
    console.log(cells.join(' '));
  }
}
