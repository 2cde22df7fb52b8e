import type { ArenaSpec } from './arena.ts';
import { AREAS_BEGIN } from './arena.ts';
import type { KernelCode } from './arena-kernel.ts';
import { ArenaKernel, newArenaMemory } from './arena-kernel.ts';
import type { MergeSegment } from './merge-kernel.ts';

/** `assembly/index.ts`, with pointers and counts as numbers. */
interface KernelExports extends Omit<KernelCode, 'merge'> {
  staticEnd(): number;
  segmentTableBegin(): number;
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
}

/** An entry of the segment table: the scale as f64, the rank as i32, and 4 bytes of nothing. */
const SEGMENT_BYTES = 16;
const SEGMENT_RANK_OFFSET = 8;

/** The WebAssembly SIMD kernel. */
export class WasmKernel extends ArenaKernel {
  constructor(module: WebAssembly.Module, spec: ArenaSpec) {
    const memory = newArenaMemory(spec);
    super(spec, memory.buffer, bindCode(module, memory));
  }
}

function bindCode(module: WebAssembly.Module, memory: WebAssembly.Memory): KernelCode {
  const instance = new WebAssembly.Instance(module, { env: { memory } });
  const code = instance.exports as unknown as KernelExports;
  const staticEnd = code.staticEnd();
  if (staticEnd > AREAS_BEGIN) throw new RangeError(`static data reaches to ${staticEnd}`);
  const table = new DataView(memory.buffer, code.segmentTableBegin());
  return {
    pack: code.pack,
    cast: code.cast,
    countNonFinite: code.countNonFinite,
    merge: (input, output, left, right, rows, cols, segments, dtypeIn, dtypeOut) => {
      const rank = writeSegments(table, segments);
      const count = segments.length;
      return code.merge(input, output, left, right, rows, cols, rank, count, dtypeIn, dtypeOut);
    },
  };
}

/** @returns their rank in all */
function writeSegments(table: DataView, segments: readonly MergeSegment[]): number {
  let total = 0;
  segments.forEach(({ rank, scale }, index) => {
    table.setFloat64(index * SEGMENT_BYTES, scale, true);
    table.setInt32(index * SEGMENT_BYTES + SEGMENT_RANK_OFFSET, rank, true);
    total += rank;
  });
  return total;
}
