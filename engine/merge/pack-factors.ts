import type { MergeKernel, MergeSegment } from '../../kernels/index.ts';
import { assert } from '../errors.ts';
import type { PlannedDelta, TensorReference } from '../plan/plan.ts';
import { isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import { elementBytes, rowBytes, rowsPerPiece, totalRank } from './arena-sizes.ts';
import type { InputFiles } from './input-files.ts';
import { readNumbers } from './read-numbers.ts';
import { scaleElements } from './scale-elements.ts';

/** Brings the factors of deltas from their files into a kernel. */
export class FactorPacker {
  readonly #kernel: MergeKernel;
  readonly #files: InputFiles;

  constructor(kernel: MergeKernel, files: InputFiles) {
    this.#kernel = kernel;
    this.#files = files;
  }

  /** The right factors of all deltas, one behind the other along the rank. */
  packRight(deltas: readonly PlannedDelta[], columns: number): void {
    const rank = totalRank(deltas);
    let rankBegin = 0;
    for (const delta of deltas) {
      this.#packRightOf(delta, columns, rankBegin, rank);
      rankBegin += delta.rank;
    }
  }

  /** The left factors of a band of rows of all deltas. */
  packLeft(deltas: readonly PlannedDelta[], begin: number, rows: number): void {
    const rank = totalRank(deltas);
    let rankBegin = 0;
    for (const delta of deltas) {
      this.#packLeftOf(delta, { begin, rows }, rankBegin, rank);
      rankBegin += delta.rank;
    }
  }

  /** R [rank, columns]: A as stored, or Bᵀ; staged some stored rows at a time. */
  #packRightOf(delta: PlannedDelta, columns: number, first: number, rank: number): void {
    const factor = (delta.transposed ? delta.b : undefined) ?? delta.a;
    const scale = factor === delta.b ? delta.outScale : delta.rankScale;
    const [storedRows = 0, rowElements = 0] = factor.shape;
    // A shared B has rows of larger modules behind those of this one.
    const rows = factor === delta.b ? columns : storedRows;
    const step = rowsPerPiece(factor);
    for (let begin = 0; begin < rows; begin += step) {
      const count = Math.min(step, rows - begin);
      const bytes = count * rowBytes(factor);
      const numbers = scale && readNumbers(this.#files, scale, begin, count);
      const dtype = this.#stage(
        factor,
        { offset: begin * rowBytes(factor), bytes, at: 0 },
        numbers,
      );
      const block = delta.transposed
        ? {
            rankStride: 1,
            laneStride: rowElements,
            laneBegin: begin,
            laneCount: count,
            rankBegin: first,
            rankCount: delta.rank,
          }
        : {
            rankStride: rowElements,
            laneStride: 1,
            rankBegin: first + begin,
            rankCount: count,
          };
      this.#kernel.packRight(rank, columns, { dtype, ...block });
    }
  }

  /** L [rows, rank] of a band of rows: rows of B, columns of A, or 1 for a bias. */
  #packLeftOf(
    delta: PlannedDelta,
    { begin, rows }: { readonly begin: number; readonly rows: number },
    rankBegin: number,
    rankTotal: number,
  ): void {
    const { b, rank } = delta;
    const part = { rankBegin, rankCount: rank };
    if (b === undefined) {
      this.#kernel.factor.set(new Uint8Array(Float32Array.of(1).buffer));
      const one = { dtype: 'f32', rankStride: 1, laneStride: rank, ...part } as const;
      this.#kernel.packLeft(rows, rankTotal, one);
      return;
    }
    if (!delta.transposed) {
      const scale = delta.outScale && readNumbers(this.#files, delta.outScale, begin, rows);
      const piece = { offset: begin * rowBytes(b), bytes: rows * rowBytes(b), at: 0 };
      const dtype = this.#stage(b, piece, scale);
      this.#kernel.packLeft(rows, rankTotal, { dtype, rankStride: 1, laneStride: rank, ...part });
      return;
    }
    const { a, rankScale } = delta;
    const scale = rankScale && readNumbers(this.#files, rankScale, 0, rank);
    let dtype = kernelDtype(a);
    for (let k = 0; k < rank; k++) {
      const offset = k * rowBytes(a) + begin * elementBytes(a);
      const piece = { offset, bytes: rows * elementBytes(a), at: k * rows };
      dtype = this.#stage(a, piece, scale?.subarray(k, k + 1));
    }
    this.#kernel.packLeft(rows, rankTotal, { dtype, rankStride: rows, laneStride: 1, ...part });
  }

  /**
   * Reads a piece of a factor into the kernel, at element `at`.
   * @param scale for each of equally long stretches of the piece, what its elements are multiplied by
   * @returns the dtype of what is staged: of scaled elements float32
   */
  #stage(
    factor: TensorReference,
    { offset, bytes, at }: { readonly offset: number; readonly bytes: number; readonly at: number },
    scale: Float64Array | undefined,
  ): KernelDtype {
    if (scale === undefined) {
      const begin = at * elementBytes(factor);
      this.#files.read(factor, offset, this.#kernel.factor.subarray(begin, begin + bytes));
      return kernelDtype(factor);
    }
    const stored = new Uint8Array(bytes);
    this.#files.read(factor, offset, stored);
    const scaled = scaleElements(stored, kernelDtype(factor), scale);
    this.#kernel.factor.set(new Uint8Array(scaled.buffer), at * Float32Array.BYTES_PER_ELEMENT);
    return 'f32';
  }
}

/** How the packed rank is divided among deltas. */
export function segmentsOf(deltas: readonly PlannedDelta[]): MergeSegment[] {
  return deltas.map(({ rank, scaling }) => ({ rank, scale: scaling }));
}

type KernelDtype = (typeof KERNEL_DTYPE)['BF16'];

function kernelDtype(factor: TensorReference): KernelDtype {
  assert(isMergeDtype(factor.dtype), `a factor has dtype ${factor.dtype}`);
  return KERNEL_DTYPE[factor.dtype];
}
