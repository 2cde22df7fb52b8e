import type { ArenaLayout, ArenaSpec } from './arena.ts';
import {
  LEFT_PANEL_ROWS,
  layOutArena,
  packedLeftBytes,
  packedRightBytes,
  RIGHT_PANEL_COLS,
  WASM_PAGE_BYTES,
} from './arena.ts';
import type { FloatDtype } from './dtypes.ts';
import { DTYPE_CODES } from './dtypes.ts';
import type {
  CastOptions,
  FactorBlock,
  FactorExtent,
  MergeKernel,
  MergeOptions,
  MergeSegment,
} from './merge-kernel.ts';
import {
  requireRoom,
  requireSameExtent,
  requireSegments,
  resolveBlock,
  resolveOffsets,
} from './merge-kernel.ts';

/** The arithmetic over a memory. Areas and elements are given by where they begin in it. */
export interface KernelCode {
  pack(
    source: number,
    rankStride: number,
    laneStride: number,
    target: number,
    rank: number,
    rankBegin: number,
    rankCount: number,
    laneBegin: number,
    laneCount: number,
    width: number,
    dtype: number,
  ): void;
  merge(
    input: number,
    output: number,
    left: number,
    right: number,
    rows: number,
    cols: number,
    segments: readonly MergeSegment[],
    dtypeIn: number,
    dtypeOut: number,
  ): number;
  cast(input: number, output: number, count: number, dtypeIn: number, dtypeOut: number): number;
  countNonFinite(input: number, count: number, dtype: number): number;
}

const UNPACKED: FactorExtent = { rank: 0, lanes: 0 };

/** Memory for all the areas, from the start of a page on: direct I/O asks for that. */
export function newArenaMemory(spec: ArenaSpec): WebAssembly.Memory {
  const pages = layOutArena(spec).end / WASM_PAGE_BYTES;
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
}

/** A kernel whose areas lie in one memory, which never grows: views stay valid. */
export class ArenaKernel implements MergeKernel {
  readonly memory: SharedArrayBuffer;
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  readonly factor: Uint8Array;
  readonly #spec: ArenaSpec;
  readonly #layout: ArenaLayout;
  readonly #code: KernelCode;
  #left = UNPACKED;
  #right = UNPACKED;

  /** @param memory of `newArenaMemory`, for the same specification */
  constructor(spec: ArenaSpec, memory: SharedArrayBuffer, code: KernelCode) {
    const layout = layOutArena(spec);
    const inputBytes = spec.inputBytesMax;
    const outputBytes = spec.outputBytesMax === 0 ? inputBytes : spec.outputBytesMax;
    this.memory = memory;
    this.input = new Uint8Array(memory, layout.inputBegin, inputBytes);
    this.output = new Uint8Array(memory, layout.outputBegin, outputBytes);
    this.factor = new Uint8Array(memory, layout.factorBegin, spec.factorBytesMax);
    this.#spec = spec;
    this.#layout = layout;
    this.#code = code;
  }

  packRight(rank: number, cols: number, block: FactorBlock): void {
    const extent = { rank, lanes: cols };
    const bytes = packedRightBytes(cols, rank);
    requireRoom('right', 0, bytes / 4, 'f32', this.#spec.rightBytesMax);
    this.#pack(extent, block, this.#layout.rightBegin, RIGHT_PANEL_COLS);
    this.#right = extent;
  }

  packLeft(rows: number, rank: number, block: FactorBlock): void {
    const extent = { rank, lanes: rows };
    const bytes = packedLeftBytes(rows, rank);
    requireRoom('left', 0, bytes / 4, 'f32', this.#spec.leftBytesMax);
    this.#pack(extent, block, this.#layout.leftBegin, LEFT_PANEL_ROWS);
    this.#left = extent;
  }

  merge(options: MergeOptions): number {
    requireSameExtent(this.#left, this.#right);
    requireSegments(options.segments, this.#left.rank);
    const rows = this.#left.lanes;
    const cols = this.#right.lanes;
    const offsets = resolveOffsets({ ...options, count: rows * cols }, this.input, this.output);
    return this.#code.merge(
      this.#layout.inputBegin + offsets.inputOffset,
      this.#layout.outputBegin + offsets.outputOffset,
      this.#layout.leftBegin,
      this.#layout.rightBegin,
      rows,
      cols,
      options.segments,
      DTYPE_CODES[options.dtypeIn],
      DTYPE_CODES[options.dtypeOut],
    );
  }

  cast(options: CastOptions): number {
    const offsets = resolveOffsets(options, this.input, this.output);
    return this.#code.cast(
      this.#layout.inputBegin + offsets.inputOffset,
      this.#layout.outputBegin + offsets.outputOffset,
      options.count,
      DTYPE_CODES[options.dtypeIn],
      DTYPE_CODES[options.dtypeOut],
    );
  }

  countNonFinite(count: number, dtype: FloatDtype, inputOffset = 0): number {
    requireRoom('input', inputOffset, count, dtype, this.input.length);
    const begin = this.#layout.inputBegin + inputOffset;
    return this.#code.countNonFinite(begin, count, DTYPE_CODES[dtype]);
  }

  #pack(extent: FactorExtent, block: FactorBlock, target: number, panelWidth: number): void {
    const resolved = resolveBlock(extent, block, this.factor.length);
    this.#code.pack(
      this.#layout.factorBegin + resolved.byteOffset,
      resolved.rankStride,
      resolved.laneStride,
      target,
      extent.rank,
      resolved.rankBegin,
      resolved.rankCount,
      resolved.laneBegin,
      resolved.laneCount,
      panelWidth,
      DTYPE_CODES[resolved.dtype],
    );
  }
}
