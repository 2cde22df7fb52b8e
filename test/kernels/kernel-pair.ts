/** Runs the same operation in the fast kernels and in the scalar reference. */
import { readFileSync } from 'node:fs';
import type {
  ArenaSpec,
  FactorBlock,
  FloatDtype,
  KernelKind,
  KernelModule,
  MergeKernel,
  MergeSegment,
} from '../../kernels/index.ts';
import {
  compileKernel,
  createKernel,
  ELEMENT_BYTES,
  packedLeftBytes,
  packedRightBytes,
} from '../../kernels/index.ts';

export const DTYPES: readonly FloatDtype[] = ['bf16', 'f16', 'f32'];

export const DTYPE_PAIRS = DTYPES.flatMap((dtypeIn) =>
  DTYPES.map((dtypeOut) => ({ dtypeIn, dtypeOut })),
);

const modules: Partial<Record<KernelKind, KernelModule>> = {
  wasm: await compileKernel({ kind: 'wasm' }),
  scalar: await compileKernel({ kind: 'scalar' }),
};
// Where it can run it must be there: it fails, and says how to build it.
if (canRunNative()) modules.native = await compileKernel({ kind: 'native' });

function canRunNative(): boolean {
  if (process.platform !== 'linux' || process.arch !== 'x64') return false;
  const features = readFileSync('/proc/cpuinfo', 'utf8');
  return /\bavx2\b/.test(features) && /\bf16c\b/.test(features);
}

export const KERNEL_KINDS = Object.keys(modules) as readonly KernelKind[];

/** Those that are measured against the reference. */
export const FAST_KINDS = KERNEL_KINDS.filter((kind) => kind !== 'scalar');

/** `linear`: R stored [r, cols], L stored [rows, r]. `conv1d`: both the other way round. */
export type FactorLayout = 'linear' | 'conv1d';

export interface MergeCase {
  readonly rows: number;
  readonly cols: number;
  /** Of all the segments. */
  readonly rank: number;
  readonly segments: readonly MergeSegment[];
  readonly dtypeIn: FloatDtype;
  readonly dtypeOut: FloatDtype;
  readonly factorDtype: FloatDtype;
  readonly layout: FactorLayout;
  readonly weights: Uint8Array;
  /** Stored as `layout` says. */
  readonly left: Uint8Array;
  readonly right: Uint8Array;
}

export interface KernelResult {
  readonly bytes: Uint8Array;
  readonly nonFinite: number;
}

export function newKernel(kind: KernelKind, spec: ArenaSpec): MergeKernel {
  const module = modules[kind];
  if (module === undefined) throw new Error(`there is no ${kind} kernel here`);
  return createKernel(module, spec);
}

/** Merges a whole case in bands of `bandRows` rows. */
export function runMerge(kind: KernelKind, test: MergeCase, bandRows = test.rows): KernelResult {
  const { rows, cols, rank, factorDtype, layout } = test;
  const inputRowBytes = cols * ELEMENT_BYTES[test.dtypeIn];
  const outputRowBytes = cols * ELEMENT_BYTES[test.dtypeOut];
  const kernel = newKernel(kind, {
    inputBytesMax: bandRows * inputRowBytes,
    outputBytesMax: bandRows * outputRowBytes,
    factorBytesMax: Math.max(test.left.length, test.right.length),
    leftBytesMax: packedLeftBytes(bandRows, rank),
    rightBytesMax: packedRightBytes(cols, rank),
  });
  kernel.factor.set(test.right);
  kernel.packRight(rank, cols, rightBlock(layout, factorDtype, rank, cols));
  const bytes = new Uint8Array(rows * outputRowBytes);
  let nonFinite = 0;
  kernel.factor.set(test.left);
  for (let row = 0; row < rows; row += bandRows) {
    const count = Math.min(bandRows, rows - row);
    kernel.packLeft(count, rank, leftBlock(layout, factorDtype, rank, rows, row));
    const begin = row * inputRowBytes;
    kernel.input.set(test.weights.subarray(begin, begin + count * inputRowBytes));
    nonFinite += kernel.merge(test);
    bytes.set(kernel.output.subarray(0, count * outputRowBytes), row * outputRowBytes);
  }
  return { bytes, nonFinite };
}

export function rightBlock(
  layout: FactorLayout,
  dtype: FloatDtype,
  rank: number,
  cols: number,
): FactorBlock {
  return layout === 'linear'
    ? { dtype, rankStride: cols, laneStride: 1 }
    : { dtype, rankStride: 1, laneStride: rank };
}

export function leftBlock(
  layout: FactorLayout,
  dtype: FloatDtype,
  rank: number,
  rows: number,
  rowBegin: number,
): FactorBlock {
  const size = ELEMENT_BYTES[dtype];
  return layout === 'linear'
    ? { dtype, rankStride: 1, laneStride: rank, byteOffset: rowBegin * rank * size }
    : { dtype, rankStride: rows, laneStride: 1, byteOffset: rowBegin * size };
}

/** Converts a run of elements; the result has one entry per element. */
export function runCast(
  kind: KernelKind,
  elements: Uint8Array,
  dtypeIn: FloatDtype,
  dtypeOut: FloatDtype,
): KernelResult {
  const count = elements.length / ELEMENT_BYTES[dtypeIn];
  const kernel = newKernel(kind, {
    inputBytesMax: elements.length,
    outputBytesMax: count * ELEMENT_BYTES[dtypeOut],
    factorBytesMax: 0,
    leftBytesMax: 0,
    rightBytesMax: 0,
  });
  kernel.input.set(elements);
  const nonFinite = kernel.cast({ count, dtypeIn, dtypeOut });
  return { bytes: kernel.output.slice(), nonFinite };
}

/** Small, seeded and good enough to fill tensors with. */
export function createRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const bytesOf = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

export const halvesOf = (bytes: Uint8Array): Uint16Array => new Uint16Array(bytes.slice().buffer);

export const wordsOf = (bytes: Uint8Array): Uint32Array => new Uint32Array(bytes.slice().buffer);
