import { assert } from '../../errors.ts';
import type { PlannedTensor } from '../../plan/plan.ts';
import type { InputFiles } from '../input-files.ts';
import { readNumbers } from '../read-numbers.ts';
import { matrixOf } from '../tensor-work.ts';
import { type BandStep, bandSteps, needsColumnNorms } from './band-steps.ts';
import { BlockRotations, rotationBytes } from './block-rotations.ts';
import type { Band, DenseRows } from './dense-deltas.ts';
import { KroneckerRows, kroneckerBytes } from './kronecker-rows.ts';

/** What steps work on: all of it is [rows, columns]. */
interface Work {
  readonly band: Band;
  /** The source's rows. */
  readonly source: Float32Array;
  /** What the steps made of them so far. */
  readonly x: Float64Array;
  /** Rows of the deltas that the step needs by themselves. */
  readonly dense: readonly DenseRows[];
}

type Apply = (work: Work) => void;

/** Gives the norms of the columns of source + delta for a step of a tensor. */
export type NormsOf = (tensor: PlannedTensor, step: number) => Float64Array;

/** What the steps of a tensor keep beside the bands of the kernels, for bands of so many rows. */
export function stepBytes(tensor: PlannedTensor, rows: number): number {
  const { columns } = matrixOf(tensor);
  const steps = bandSteps(tensor);
  if (steps === undefined) return 0;
  const kept = steps.map((step) => {
    if (step.kind === 'kronecker') return kroneckerBytes(step);
    if (step.kind === 'rotation') return rotationBytes(step);
    return columns * Float64Array.BYTES_PER_ELEMENT;
  });
  const x = rows * columns * Float64Array.BYTES_PER_ELEMENT;
  return kept.reduce((sum, bytes) => sum + bytes, x);
}

/** Takes the steps that make rows of a weight from its source, in float64. */
export class StepRunner {
  readonly #files: InputFiles;
  readonly #normsOf: NormsOf;
  #prepared: { readonly tensor: PlannedTensor; readonly applies: readonly Apply[] } | undefined;
  #x = new Float64Array();

  constructor(files: InputFiles, normsOf: NormsOf) {
    this.#files = files;
    this.#normsOf = normsOf;
  }

  /**
   * Reads what the steps of a tensor need. Norms of columns may take a pass over all of it, in the
   * memory that bands are made in: to be called before a band is.
   */
  prepare(tensor: PlannedTensor): void {
    if (this.#prepared?.tensor === tensor) return;
    const steps = bandSteps(tensor) ?? [];
    // What the last tensor kept goes before what this one needs comes.
    this.#prepared = undefined;
    const applies = steps.map((step, index) => {
      const norms = needsColumnNorms(step) ? this.#normsOf(tensor, index) : undefined;
      return prepareStep(step, matrixOf(tensor), norms, this.#files);
    });
    this.#prepared = { tensor, applies };
  }

  /**
   * @param dense of all steps, in their order
   * @param into where the rows go, rounded to float32
   */
  run(
    tensor: PlannedTensor,
    band: Band,
    source: Float32Array,
    dense: readonly DenseRows[],
    into: Float32Array,
  ): void {
    assert(this.#prepared?.tensor === tensor, `${tensor.name} was not prepared`);
    if (this.#x.length < source.length) this.#x = new Float64Array(source.length);
    const x = this.#x.subarray(0, source.length);
    x.set(source);
    let next = 0;
    for (const [index, step] of (bandSteps(tensor) ?? []).entries()) {
      const count = denseCount(step);
      const own = dense.slice(next, next + count);
      this.#prepared.applies[index]?.({ band, source, x, dense: own });
      next += count;
    }
    into.set(x);
  }
}

function denseCount({ kind }: BandStep): number {
  if (kind === 'hadamard') return 2;
  return kind === 'add' || kind === 'dora' ? 1 : 0;
}

function prepareStep(
  step: BandStep,
  { columns }: { readonly columns: number },
  norms: Float64Array | undefined,
  files: InputFiles,
): Apply {
  switch (step.kind) {
    case 'add':
      return ({ x, dense: [delta] }) => {
        for (let i = 0; i < x.length; i++) x[i]! += delta!.values[i]!;
      };
    case 'hadamard':
      return ({ x, dense: [first, second] }) => {
        for (let i = 0; i < x.length; i++) {
          x[i]! += step.scaling * first!.values[i]! * second!.values[i]!;
        }
      };
    case 'dora':
      return prepareDora(step.delta, columns, norms, files);
    case 'kronecker': {
      const product = new KroneckerRows(step, files);
      return byRow((row, index) => product.add(index, row));
    }
    case 'rotation': {
      const rotations = new BlockRotations(step, files);
      return ({ x }) => rotations.rotate(x, columns);
    }
    case 'scale': {
      if (step.along === 'rows') {
        return ({ band, x }) => {
          const numbers = readNumbers(files, step.vector, band.begin, band.rows);
          scaleByRows(x, numbers, columns);
        };
      }
      const numbers = readNumbers(files, step.vector, 0, columns);
      return ({ x }) => scaleByColumns(x, numbers);
    }
  }
}

function prepareDora(
  { magnitude }: Extract<BandStep, { kind: 'dora' }>['delta'],
  columns: number,
  norms: Float64Array | undefined,
  files: InputFiles,
): Apply {
  assert(magnitude !== undefined, 'DoRA has no magnitude');
  if (norms === undefined) {
    return ({ band, source, x, dense: [delta] }) => {
      const factors = readNumbers(files, magnitude, band.begin, band.rows);
      const { values } = delta!;
      for (let row = 0; row < band.rows; row++) {
        let squares = 0;
        for (let i = row * columns; i < (row + 1) * columns; i++) {
          squares += (source[i]! + values[i]!) ** 2;
          x[i]! += values[i]!;
        }
        factors[row]! /= Math.sqrt(squares);
      }
      scaleByRows(x, factors, columns);
    };
  }
  const factors = readNumbers(files, magnitude, 0, columns).map((m, i) => m / norms[i]!);
  return ({ x, dense: [delta] }) => {
    for (let i = 0; i < x.length; i++) x[i]! += delta!.values[i]!;
    scaleByColumns(x, factors);
  };
}

function byRow(change: (row: Float64Array, index: number) => void): Apply {
  return ({ band, x }) => {
    for (let row = 0; row < band.rows; row++) {
      change(x.subarray(row * band.columns, (row + 1) * band.columns), band.begin + row);
    }
  };
}

function scaleByRows(x: Float64Array, numbers: Float64Array, columns: number): void {
  for (const [row, number] of numbers.entries()) {
    for (let i = row * columns; i < (row + 1) * columns; i++) x[i]! *= number;
  }
}

function scaleByColumns(x: Float64Array, numbers: Float64Array): void {
  for (let begin = 0; begin < x.length; begin += numbers.length) {
    for (const [i, number] of numbers.entries()) x[begin + i]! *= number;
  }
}
