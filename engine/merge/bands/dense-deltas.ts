import {
  type ArenaSpec,
  createKernel,
  type KernelModule,
  type MergeKernel,
} from '../../../kernels/index.ts';
import { assert } from '../../errors.ts';
import type { PlannedDelta } from '../../plan/plan.ts';
import type { InputFiles } from '../input-files.ts';
import { FactorPacker, segmentsOf } from '../pack-factors.ts';

/** Rows [begin, begin + rows) of a tensor as the matrix that deltas are added to. */
export interface Band {
  readonly begin: number;
  readonly rows: number;
  readonly columns: number;
}

/** One delta's rows: `values` is [rows, columns], row after row. */
export interface DenseRows {
  readonly values: Float32Array;
  /** How many of them are infinite or not a number. */
  readonly nonFinite: number;
}

/**
 * Makes rows of single deltas in float32: each element is `scaling · Σ L R` in float64, rounded once.
 * The deltas of a tensor have a slot each, with a kernel of its own: a right factor stays packed
 * over the bands of its tensor, and rows stay where the kernel made them.
 */
export class DenseDeltas {
  readonly #newKernel: () => MergeKernel;
  readonly #files: InputFiles;
  readonly #slots: Slot[] = [];

  /** @param arena of each slot; input and output share their memory */
  constructor(module: KernelModule, arena: ArenaSpec, files: InputFiles) {
    assert(arena.outputBytesMax === 0, 'a dense delta is made in place');
    this.#newKernel = () => createKernel(module, arena);
    this.#files = files;
  }

  /**
   * @param slot whose memory is used; what it held before is gone
   * @returns good until the slot's next rows
   */
  rows(slot: number, delta: PlannedDelta, { begin, rows, columns }: Band): DenseRows {
    const { kernel, factors, ...held } = this.#slotAt(slot);
    if (held.packed !== delta) {
      factors.packRight([delta], columns);
      this.#slots[slot] = { kernel, factors, packed: delta };
    }
    factors.packLeft([delta], begin, rows);
    const values = new Float32Array(kernel.output.buffer, kernel.output.byteOffset, rows * columns);
    values.fill(0);
    const segments = segmentsOf([delta]);
    const nonFinite = kernel.merge({ segments, dtypeIn: 'f32', dtypeOut: 'f32' });
    return { values, nonFinite };
  }

  #slotAt(index: number): Slot {
    const known = this.#slots[index];
    if (known !== undefined) return known;
    const kernel = this.#newKernel();
    const slot = { kernel, factors: new FactorPacker(kernel, this.#files), packed: undefined };
    this.#slots[index] = slot;
    return slot;
  }
}

interface Slot {
  readonly kernel: MergeKernel;
  readonly factors: FactorPacker;
  /** The delta whose right factor is packed. */
  readonly packed: PlannedDelta | undefined;
}
