import type { MergeKernel } from '../../kernels/index.ts';
import { assert } from '../errors.ts';
import type { PlannedDelta, TensorReference } from '../plan/plan.ts';
import { isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import { elementBytes, rowBytes, rowsPerPiece } from './arena-sizes.ts';
import type { InputFiles } from './input-files.ts';

/** Brings the factors of deltas from their files into a kernel. */
export class FactorPacker {
  readonly #kernel: MergeKernel;
  readonly #files: InputFiles;

  constructor(kernel: MergeKernel, files: InputFiles) {
    this.#kernel = kernel;
    this.#files = files;
  }

  /** R [rank, columns]: A as stored, or Bᵀ; staged some stored rows at a time. */
  packRight(delta: PlannedDelta, columns: number): void {
    const factor = (delta.transposed ? delta.b : undefined) ?? delta.a;
    const [rows = 0, rowElements = 0] = factor.shape;
    const step = rowsPerPiece(factor);
    for (let begin = 0; begin < rows; begin += step) {
      const count = Math.min(step, rows - begin);
      const bytes = count * rowBytes(factor);
      this.#files.read(factor, begin * rowBytes(factor), this.#kernel.factor.subarray(0, bytes));
      const block = delta.transposed
        ? { rankStride: 1, laneStride: rowElements, laneBegin: begin, laneCount: count }
        : { rankStride: rowElements, laneStride: 1, rankBegin: begin, rankCount: count };
      this.#kernel.packRight(delta.rank, columns, { dtype: kernelDtype(factor), ...block });
    }
  }

  /** L [rows, rank] of a band of rows: rows of B, columns of A, or 1 for a bias. */
  packLeft(delta: PlannedDelta, begin: number, rows: number): void {
    const { b, rank } = delta;
    if (b === undefined) {
      this.#kernel.factor.set(new Uint8Array(Float32Array.of(1).buffer));
      this.#kernel.packLeft(rows, rank, { dtype: 'f32', rankStride: 1, laneStride: rank });
      return;
    }
    if (!delta.transposed) {
      const staged = this.#kernel.factor.subarray(0, rows * rowBytes(b));
      this.#files.read(b, begin * rowBytes(b), staged);
      const block = { dtype: kernelDtype(b), rankStride: 1, laneStride: rank };
      this.#kernel.packLeft(rows, rank, block);
      return;
    }
    const pieceBytes = rows * elementBytes(delta.a);
    for (let k = 0; k < rank; k++) {
      const offset = k * rowBytes(delta.a) + begin * elementBytes(delta.a);
      const piece = this.#kernel.factor.subarray(k * pieceBytes, (k + 1) * pieceBytes);
      this.#files.read(delta.a, offset, piece);
    }
    const block = { dtype: kernelDtype(delta.a), rankStride: rows, laneStride: 1 };
    this.#kernel.packLeft(rows, rank, block);
  }
}

function kernelDtype(factor: TensorReference): (typeof KERNEL_DTYPE)['BF16'] {
  assert(isMergeDtype(factor.dtype), `a factor has dtype ${factor.dtype}`);
  return KERNEL_DTYPE[factor.dtype];
}
