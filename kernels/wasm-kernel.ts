import type { ArenaLayout, ArenaSpec } from './arena.ts';
import {
  AREAS_BEGIN,
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

/** `assembly/index.ts`, with pointers and counts as numbers. */
interface KernelExports {
  staticEnd(): number;
  segmentTableBegin(): number;
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
    rank: number,
    segments: number,
    dtypeIn: number,
    dtypeOut: number,
  ): number;
  cast(input: number, output: number, count: number, dtypeIn: number, dtypeOut: number): number;
  countNonFinite(input: number, count: number, dtype: number): number;
}

/** An entry of the segment table: the scale as f64, the rank as i32, and 4 bytes of nothing. */
const SEGMENT_BYTES = 16;
const SEGMENT_RANK_OFFSET = 8;

const UNPACKED: FactorExtent = { rank: 0, lanes: 0 };

/** The WebAssembly SIMD kernel over a memory of its own, which never grows: views stay valid. */
export class WasmKernel implements MergeKernel {
  readonly memory: SharedArrayBuffer;
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  readonly factor: Uint8Array;
  readonly #spec: ArenaSpec;
  readonly #layout: ArenaLayout;
  readonly #exports: KernelExports;
  #left = UNPACKED;
  #right = UNPACKED;

  constructor(module: WebAssembly.Module, spec: ArenaSpec) {
    const layout = layOutArena(spec);
    const pages = layout.end / WASM_PAGE_BYTES;
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const instance = new WebAssembly.Instance(module, { env: { memory } });
    this.memory = memory.buffer;
    this.#spec = spec;
    this.#layout = layout;
    this.#exports = instance.exports as unknown as KernelExports;
    const staticEnd = this.#exports.staticEnd();
    if (staticEnd > AREAS_BEGIN) throw new RangeError(`static data reaches to ${staticEnd}`);
    const inputBytes = spec.inputBytesMax;
    const outputBytes = spec.outputBytesMax === 0 ? inputBytes : spec.outputBytesMax;
    this.input = new Uint8Array(this.memory, layout.inputBegin, inputBytes);
    this.output = new Uint8Array(this.memory, layout.outputBegin, outputBytes);
    this.factor = new Uint8Array(this.memory, layout.factorBegin, spec.factorBytesMax);
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
    this.#writeSegments(options.segments);
    return this.#exports.merge(
      this.#layout.inputBegin + offsets.inputOffset,
      this.#layout.outputBegin + offsets.outputOffset,
      this.#layout.leftBegin,
      this.#layout.rightBegin,
      rows,
      cols,
      this.#left.rank,
      options.segments.length,
      DTYPE_CODES[options.dtypeIn],
      DTYPE_CODES[options.dtypeOut],
    );
  }

  cast(options: CastOptions): number {
    const offsets = resolveOffsets(options, this.input, this.output);
    return this.#exports.cast(
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
    return this.#exports.countNonFinite(begin, count, DTYPE_CODES[dtype]);
  }

  #writeSegments(segments: readonly MergeSegment[]): void {
    const table = new DataView(this.memory, this.#exports.segmentTableBegin());
    segments.forEach(({ rank, scale }, index) => {
      table.setFloat64(index * SEGMENT_BYTES, scale, true);
      table.setInt32(index * SEGMENT_BYTES + SEGMENT_RANK_OFFSET, rank, true);
    });
  }

  #pack(extent: FactorExtent, block: FactorBlock, target: number, panelWidth: number): void {
    const resolved = resolveBlock(extent, block, this.factor.length);
    this.#exports.pack(
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
