/** Sizes of a kernel's memory: what the planner must set aside for each worker thread. */

/** Lanes in a panel of the packed factors; the register tile of `assembly/merge.ts`. */
export const LEFT_PANEL_ROWS = 4;
export const RIGHT_PANEL_COLS = 8;

export interface ArenaSpec {
  /** Largest band of weights, in input bytes. */
  readonly inputBytesMax: number;
  /** Largest band of weights, in output bytes; 0 merges in place, over the input. */
  readonly outputBytesMax: number;
  /** Largest piece of a raw factor that is staged at once. */
  readonly factorBytesMax: number;
  /** `packedLeftBytes` of the largest band. */
  readonly leftBytesMax: number;
  /** `packedRightBytes` of the largest factor. */
  readonly rightBytesMax: number;
}

export interface ArenaLayout {
  readonly inputBegin: number;
  readonly outputBegin: number;
  readonly factorBegin: number;
  readonly leftBegin: number;
  readonly rightBegin: number;
  readonly end: number;
}

export const WASM_PAGE_BYTES = 65_536;

/** A 32-bit WebAssembly memory cannot be larger. */
const ARENA_BYTES_MAX = 2 ** 32;

/** The module's own static data fits in the first page; the kernel checks that at start. */
export const AREAS_BEGIN = WASM_PAGE_BYTES;

/** Direct I/O wants buffers on page boundaries; it also keeps areas off shared cache lines. */
const AREA_ALIGNMENT_BYTES = 4096;

/** Bytes that rows x rank of the left factor take once packed. */
export function packedLeftBytes(rows: number, rank: number): number {
  return roundUp(rows, LEFT_PANEL_ROWS) * rank * 4;
}

/** Bytes that rank x cols of the right factor take once packed. */
export function packedRightBytes(cols: number, rank: number): number {
  return roundUp(cols, RIGHT_PANEL_COLS) * rank * 4;
}

/** Memory of one kernel in bytes; each worker thread has its own. */
export function arenaBytes(spec: ArenaSpec): number {
  return layOutArena(spec).end;
}

/** @throws RangeError for a size that is not a whole number, or a total past 4 GiB */
export function layOutArena(spec: ArenaSpec): ArenaLayout {
  for (const [name, bytes] of Object.entries(spec)) {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new RangeError(`${name} must be a whole number of bytes, got ${bytes}`);
    }
  }
  const inputBegin = AREAS_BEGIN;
  const inputEnd = roundUp(inputBegin + spec.inputBytesMax, AREA_ALIGNMENT_BYTES);
  const outputBegin = spec.outputBytesMax === 0 ? inputBegin : inputEnd;
  const factorBegin = roundUp(inputEnd + spec.outputBytesMax, AREA_ALIGNMENT_BYTES);
  const leftBegin = roundUp(factorBegin + spec.factorBytesMax, AREA_ALIGNMENT_BYTES);
  const rightBegin = roundUp(leftBegin + spec.leftBytesMax, AREA_ALIGNMENT_BYTES);
  const end = roundUp(rightBegin + spec.rightBytesMax, WASM_PAGE_BYTES);
  if (end > ARENA_BYTES_MAX) {
    throw new RangeError(`a kernel memory of ${end} bytes is over 4 GiB; use smaller bands`);
  }
  return { inputBegin, outputBegin, factorBegin, leftBegin, rightBegin, end };
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
