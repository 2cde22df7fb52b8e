import { createKernel, type KernelModule, type MergeKernel } from '../../../kernels/index.ts';
import { assert } from '../../errors.ts';
import type { PlannedDelta, PlannedTensor } from '../../plan/plan.ts';
import { type BandArenas, bandRows } from '../arena-sizes.ts';
import type { InputFiles } from '../input-files.ts';
import { FactorPacker, segmentsOf } from '../pack-factors.ts';
import { SourceReader } from '../readers/source-reader.ts';
import { rowBlocks } from '../row-blocks.ts';
import { bandDeltas, kernelDtypes, matrixOf, unitsOf } from '../tensor-work.ts';
import { bandSteps } from './band-steps.ts';
import { columnNorms, type SharedNorms } from './column-norms.ts';
import { combineRows } from './combine-rows.ts';
import { type Band, DenseDeltas, type DenseRows } from './dense-deltas.ts';
import type { Cuts } from './find-cuts.ts';
import { scaleRows } from './scale-rows.ts';
import { StepRunner } from './step-runner.ts';

/** What a band is made from: rows of its tensor's source, and of single deltas. */
interface BandParts {
  /** The source's rows with the `summed` deltas added, rounded once to float32. */
  readonly sums: Float32Array;
  /** The `dense` deltas' rows, in their order. */
  readonly dense: readonly DenseRows[];
}

/**
 * Makes rows of tensors that are more than `round(W + Σ scaling · L R)`: band by band, in float32,
 * by steps over the values of a band (`#finish`), and at the end one rounding to the output's dtype.
 */
export class BandMaker {
  readonly #kernel: MergeKernel;
  readonly #files: InputFiles;
  readonly #factors: FactorPacker;
  readonly #sources: SourceReader;
  readonly #dense: DenseDeltas | undefined;
  readonly #steps: StepRunner;
  readonly #cuts: Cuts;
  readonly #norms: SharedNorms;
  /** The first of the deltas whose right factors are packed. */
  #packed: PlannedDelta | undefined;

  constructor(
    module: KernelModule,
    arenas: BandArenas,
    files: InputFiles,
    cuts: Cuts = new Map(),
    norms: SharedNorms = new Map(),
  ) {
    this.#cuts = cuts;
    this.#norms = norms;
    this.#steps = new StepRunner(files, (tensor, step) => this.#columnNorms(tensor, step));
    this.#kernel = createKernel(module, arenas.sums);
    this.#files = files;
    this.#factors = new FactorPacker(this.#kernel, files);
    this.#sources = new SourceReader(this.#kernel, files);
    this.#dense = arenas.dense && new DenseDeltas(module, arenas.dense, files);
  }

  /**
   * @param begin first row, and `end` the one after the last
   * @param into their bytes in the output
   * @returns how many values are not finite
   */
  make(tensor: PlannedTensor, begin: number, end: number, into: Uint8Array): number {
    const { outputBytes } = unitsOf(tensor);
    const { columns } = matrixOf(tensor);
    const step = bandRows(tensor);
    if (bandSteps(tensor) !== undefined) this.#steps.prepare(tensor);
    let nonFinite = 0;
    for (const { deltas, ...block } of rowBlocks(tensor, begin, end)) {
      for (let row = block.begin; row < block.end; row += step) {
        const rows = Math.min(step, block.end - row);
        const place = (row - begin) * outputBytes;
        const bytes = into.subarray(place, place + rows * outputBytes);
        nonFinite += this.#makeBand(tensor, deltas, { begin: row, rows, columns }, bytes);
      }
    }
    return nonFinite;
  }

  /** @param deltas of these rows */
  #makeBand(
    tensor: PlannedTensor,
    deltas: readonly PlannedDelta[],
    band: Band,
    into: Uint8Array,
  ): number {
    const kernel = this.#kernel;
    const count = band.rows * band.columns;
    const { summed, dense } = bandDeltas(tensor, deltas);
    const parts = {
      sums: this.#sums(tensor, summed, band),
      dense: dense.map((delta, slot) => this.#denseRows(slot, delta, band)),
    };
    const values = new Float32Array(kernel.input.buffer, kernel.input.byteOffset, count);
    this.#finish(tensor, deltas[0], band, parts, values);
    const { dtypeOut } = kernelDtypes(tensor);
    const nonFinite = kernel.cast({ count, dtypeIn: 'f32', dtypeOut });
    into.set(kernel.output.subarray(0, into.length));
    return parts.dense.reduce((sum, each) => sum + each.nonFinite, nonFinite);
  }

  /** @param values [rows, columns]: what the rows are before they are rounded to the dtype */
  #finish(
    tensor: PlannedTensor,
    delta: PlannedDelta | undefined,
    band: Band,
    { sums, dense }: BandParts,
    values: Float32Array,
  ): void {
    if (tensor.combination !== undefined) {
      combineRows(tensor, band, sums, dense, this.#cuts.get(tensor.name) ?? [], values);
      return;
    }
    if (bandSteps(tensor) !== undefined) {
      this.#steps.run(tensor, band, sums, dense, values);
      return;
    }
    if (delta === undefined) {
      values.set(sums);
      return;
    }
    assert(delta.magnitude !== undefined, `${tensor.name} has no magnitude`);
    const ofDelta = { ...band, begin: band.begin - (delta.rows?.begin ?? 0) };
    scaleRows(delta.magnitude, ofDelta, this.#files, sums, values);
  }

  /** Norms of the columns of source + delta, over all rows, added up in float64 from the first on. */
  #columnNorms(tensor: PlannedTensor, index: number): Float64Array {
    const step = bandSteps(tensor)?.[index];
    assert(step?.kind === 'dora', `step ${index} of ${tensor.name} needs no norms`);
    return columnNorms(this.#norms, tensor, index, (norms) => {
      const { rows: end, columns } = matrixOf(tensor);
      norms.fill(0);
      const rowsMax = bandRows(tensor);
      for (let begin = 0; begin < end; begin += rowsMax) {
        const band = { begin, rows: Math.min(rowsMax, end - begin), columns };
        const source = this.#sums(tensor, [], band);
        const { values } = this.#denseRows(0, step.delta, band);
        for (let at = 0; at < values.length; at += columns) {
          for (let i = 0; i < columns; i++) norms[i]! += (source[at + i]! + values[at + i]!) ** 2;
        }
      }
      for (let i = 0; i < columns; i++) norms[i] = Math.sqrt(norms[i]!);
    });
  }

  #sums(tensor: PlannedTensor, summed: readonly PlannedDelta[], band: Band): Float32Array {
    const { begin, rows, columns } = band;
    const kernel = this.#kernel;
    const { dtypeIn } = kernelDtypes(tensor);
    this.#sources.read(tensor, begin, rows, 0);
    if (summed.length === 0) {
      kernel.cast({ count: rows * columns, dtypeIn, dtypeOut: 'f32' });
    } else {
      if (this.#packed !== summed[0]) {
        this.#factors.packRight(summed, columns);
        this.#packed = summed[0];
      }
      this.#factors.packLeft(summed, begin, rows);
      kernel.merge({ segments: segmentsOf(summed), dtypeIn, dtypeOut: 'f32' });
    }
    return new Float32Array(kernel.output.buffer, kernel.output.byteOffset, rows * columns);
  }

  #denseRows(slot: number, delta: PlannedDelta, band: Band): DenseRows {
    assert(this.#dense !== undefined, 'there is no memory for dense deltas');
    return this.#dense.rows(slot, delta, band);
  }
}
