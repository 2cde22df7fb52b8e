import {
  type ArenaSpec,
  createKernel,
  decodeElements,
  type KernelModule,
  type MergeKernel,
} from '../../kernels/index.ts';
import { assert } from '../errors.ts';
import type { PlannedDelta, PlannedTensor, TensorReference } from '../plan/plan.ts';
import { isMergeDtype, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import { doraBandRows } from './arena-sizes.ts';
import type { InputFiles } from './input-files.ts';
import { FactorPacker, segmentsOf } from './pack-factors.ts';
import { rowBlocks } from './row-blocks.ts';
import { SourceReader } from './source-reader.ts';
import { kernelDtypes, matrixOf, unitsOf } from './tensor-work.ts';

/**
 * Makes rows of weights with DoRA (PEFT's `DoraLinearVariant`): `m / |x| · x` with x = W + scaling ·
 * B A, row by row, where |x| is the L2 norm of the row and m its trained length. x is rounded to
 * float32, the norm is added up in float64, and what comes of it is rounded to float32 and then to
 * the dtype: PEFT's steps, of which the norm is exact here.
 */
export class DoraMaker {
  readonly #kernel: MergeKernel;
  readonly #files: InputFiles;
  readonly #factors: FactorPacker;
  readonly #sources: SourceReader;
  /** The delta whose right factor is packed. */
  #packed: PlannedDelta | undefined;

  constructor(module: KernelModule, arena: ArenaSpec, files: InputFiles) {
    this.#kernel = createKernel(module, arena);
    this.#files = files;
    this.#factors = new FactorPacker(this.#kernel, files);
    this.#sources = new SourceReader(this.#kernel, files);
  }

  /**
   * @param begin first row, and `end` the one after the last
   * @param into their bytes in the output
   * @returns how many values are not finite
   */
  make(tensor: PlannedTensor, begin: number, end: number, into: Uint8Array): number {
    const { outputBytes } = unitsOf(tensor);
    const step = doraBandRows(tensor);
    let nonFinite = 0;
    for (const block of rowBlocks(tensor, begin, end)) {
      for (let row = block.begin; row < block.end; row += step) {
        const rows = Math.min(step, block.end - row);
        const place = (row - begin) * outputBytes;
        const band = into.subarray(place, place + rows * outputBytes);
        nonFinite += this.#makeBand(tensor, block.deltas[0], { begin: row, rows }, band);
      }
    }
    return nonFinite;
  }

  #makeBand(
    tensor: PlannedTensor,
    delta: PlannedDelta | undefined,
    { begin, rows }: { readonly begin: number; readonly rows: number },
    into: Uint8Array,
  ): number {
    const kernel = this.#kernel;
    const { columns } = matrixOf(tensor);
    const { dtypeIn, dtypeOut } = kernelDtypes(tensor);
    if (delta === undefined) {
      this.#sources.read(tensor, begin, rows, 0);
      const unchanged = kernel.cast({ count: rows * columns, dtypeIn, dtypeOut });
      into.set(kernel.output.subarray(0, into.length));
      return unchanged;
    }
    assert(delta.magnitude !== undefined, `${tensor.name} has no magnitude`);
    if (this.#packed !== delta) {
      this.#factors.packRight([delta], columns);
      this.#packed = delta;
    }
    this.#factors.packLeft([delta], begin, rows);
    this.#sources.read(tensor, begin, rows, 0);
    kernel.merge({ segments: segmentsOf([delta]), dtypeIn, dtypeOut: 'f32' });

    const count = rows * columns;
    const sums = new Float32Array(kernel.output.buffer, kernel.output.byteOffset, count);
    const scaled = new Float32Array(kernel.input.buffer, kernel.input.byteOffset, count);
    const lengths = this.#lengths(delta.magnitude, begin - (delta.rows?.begin ?? 0), rows);
    for (const [row, length] of lengths.entries()) {
      scaleRow(sums, scaled, row * columns, (row + 1) * columns, length);
    }
    const nonFinite = kernel.cast({ count, dtypeIn: 'f32', dtypeOut });
    into.set(kernel.output.subarray(0, into.length));
    return nonFinite;
  }

  #lengths(magnitude: TensorReference, begin: number, rows: number): Float64Array {
    assert(isMergeDtype(magnitude.dtype), `a magnitude has dtype ${magnitude.dtype}`);
    const size = magnitude.byteLength / (magnitude.shape[0] ?? 1);
    const bytes = new Uint8Array(rows * size);
    this.#files.read(magnitude, begin * size, bytes);
    return decodeElements(bytes, KERNEL_DTYPE[magnitude.dtype]);
  }
}

/** Elements [begin, end) of `from`, scaled to a length, into the same places of `to`. */
function scaleRow(
  from: Float32Array,
  to: Float32Array,
  begin: number,
  end: number,
  length: number,
): void {
  let squares = 0;
  for (let i = begin; i < end; i++) squares += from[i]! * from[i]!;
  const factor = length / Math.sqrt(squares);
  for (let i = begin; i < end; i++) to[i] = factor * from[i]!;
}
