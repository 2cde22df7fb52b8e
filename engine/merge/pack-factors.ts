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

  /** The left factors of a band of rows of the tensor, which all deltas are added to. */
  packLeft(deltas: readonly PlannedDelta[], begin: number, rows: number): void {
    const rank = totalRank(deltas);
    let rankBegin = 0;
    for (const delta of deltas) {
      const band = { begin: begin - (delta.rows?.begin ?? 0), rows };
      this.#packLeftOf(delta, band, rankBegin, rank);
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
            ...columnsOf(delta, factor),
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

  /** L [rows, rank] of a band of a delta's rows: rows of B, columns of A, or 1 for a bias. */
  #packLeftOf(
    delta: PlannedDelta,
    { begin, rows }: Band,
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
      const step = rowsPerPiece(b);
      for (let done = 0; done < rows; done += step) {
        const count = Math.min(step, rows - done);
        const staged = this.#kernel.factor.subarray(0, count * rowBytes(b));
        this.#files.read(b, (begin + done) * rowBytes(b), staged);
        const lanes = { laneStride: b.shape[1] ?? 1, laneBegin: done, laneCount: count };
        const block = { dtype: kernelDtype(b), ...columnsOf(delta, b), ...lanes, ...part };
        this.#kernel.packLeft(rows, rankTotal, block);
      }
      return;
    }
    const firstColumn = begin + (delta.aColumn ?? 0);
    const pieceBytes = rows * elementBytes(delta.a);
    for (let k = 0; k < rank; k++) {
      const offset = k * rowBytes(delta.a) + firstColumn * elementBytes(delta.a);
      const piece = this.#kernel.factor.subarray(k * pieceBytes, (k + 1) * pieceBytes);
      this.#files.read(delta.a, offset, piece);
    }
    const block = { dtype: kernelDtype(delta.a), rankStride: rows, laneStride: 1, ...part };
    this.#kernel.packLeft(rows, rankTotal, block);
  }
}

/** Rows of a delta, counted from its own first one. */
interface Band {
  readonly begin: number;
  readonly rows: number;
}

/** Which columns of the staged B are one delta's. */
function columnsOf(
  { bColumns = { begin: 0, step: 1 } }: PlannedDelta,
  b: TensorReference,
): { readonly byteOffset: number; readonly rankStride: number } {
  return { byteOffset: bColumns.begin * elementBytes(b), rankStride: bColumns.step };
}

/** How the packed rank is divided among deltas. */
export function segmentsOf(deltas: readonly PlannedDelta[]): MergeSegment[] {
  return deltas.map(({ rank, scaling }) => ({ rank, scale: scaling }));
}

function kernelDtype(factor: TensorReference): (typeof KERNEL_DTYPE)['BF16'] {
  assert(isMergeDtype(factor.dtype), `a factor has dtype ${factor.dtype}`);
  return KERNEL_DTYPE[factor.dtype];
}
