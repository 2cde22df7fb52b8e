import type { MergeKernel, MergeSegment } from '../../kernels/index.ts';
import { assert } from '../errors.ts';
import type { PlannedDelta, TensorReference } from '../plan/plan.ts';
import { isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import { elementBytes, rowBytes, rowsPerPiece, totalRank } from './arena-sizes.ts';
import type { InputFiles } from './input-files.ts';

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
    const [rows = 0, rowElements = 0] = factor.shape;
    const step = rowsPerPiece(factor);
    for (let begin = 0; begin < rows; begin += step) {
      const count = Math.min(step, rows - begin);
      const bytes = count * rowBytes(factor);
      this.#files.read(factor, begin * rowBytes(factor), this.#kernel.factor.subarray(0, bytes));
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
      this.#kernel.packRight(rank, columns, { dtype: kernelDtype(factor), ...block });
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
      const staged = this.#kernel.factor.subarray(0, rows * rowBytes(b));
      this.#files.read(b, begin * rowBytes(b), staged);
      const block = { dtype: kernelDtype(b), rankStride: 1, laneStride: rank, ...part };
      this.#kernel.packLeft(rows, rankTotal, block);
      return;
    }
    const pieceBytes = rows * elementBytes(delta.a);
    for (let k = 0; k < rank; k++) {
      const offset = k * rowBytes(delta.a) + begin * elementBytes(delta.a);
      const piece = this.#kernel.factor.subarray(k * pieceBytes, (k + 1) * pieceBytes);
      this.#files.read(delta.a, offset, piece);
    }
    const block = { dtype: kernelDtype(delta.a), rankStride: rows, laneStride: 1, ...part };
    this.#kernel.packLeft(rows, rankTotal, block);
  }
}

/** How the packed rank is divided among deltas. */
export function segmentsOf(deltas: readonly PlannedDelta[]): MergeSegment[] {
  return deltas.map(({ rank, scaling }) => ({ rank, scale: scaling }));
}

function kernelDtype(factor: TensorReference): (typeof KERNEL_DTYPE)['BF16'] {
  assert(isMergeDtype(factor.dtype), `a factor has dtype ${factor.dtype}`);
  return KERNEL_DTYPE[factor.dtype];
}
