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
      this.#kernel.packRight(rank, columns, { dtype, ...block });
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
      const { outScale } = delta;
      const step = rowsPerPiece(b);
      for (let done = 0; done < rows; done += step) {
        const count = Math.min(step, rows - done);
        const first = begin + done;
        const scale = outScale && readNumbers(this.#files, outScale, first, count);
        const piece = { offset: first * rowBytes(b), bytes: count * rowBytes(b), at: 0 };
        const dtype = this.#stage(b, piece, scale);
        const lanes = { laneStride: b.shape[1] ?? 1, laneBegin: done, laneCount: count };
        this.#kernel.packLeft(rows, rankTotal, {
          dtype,
          ...columnsOf(delta, b),
          ...lanes,
          ...part,
        });
      }
      return;
    }
    const { a, rankScale } = delta;
    const scale = rankScale && readNumbers(this.#files, rankScale, 0, rank);
    const firstColumn = begin + (delta.aColumn ?? 0);
    let dtype = kernelDtype(a);
    for (let k = 0; k < rank; k++) {
      const offset = k * rowBytes(a) + firstColumn * elementBytes(a);
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

type KernelDtype = (typeof KERNEL_DTYPE)['BF16'];

function kernelDtype(factor: TensorReference): KernelDtype {
  assert(isMergeDtype(factor.dtype), `a factor has dtype ${factor.dtype}`);
  return KERNEL_DTYPE[factor.dtype];
}
