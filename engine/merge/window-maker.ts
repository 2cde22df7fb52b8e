import type { MergeKernel } from '../../kernels/index.ts';
import { assert, WeldlineError } from '../errors.ts';
import type { PlannedDelta, PlannedShard, PlannedTensor, TensorReference } from '../plan/plan.ts';
import type { BandMaker } from './bands/band-maker.ts';
import type { InputFiles } from './input-files.ts';
import { FactorPacker, segmentsOf } from './pack-factors.ts';
import { SourceReader } from './readers/source-reader.ts';
import { replaceRows } from './replace-rows.ts';
import { type RowBlock, rowBlocks } from './row-blocks.ts';
import { kernelDtypes, matrixOf, unitsOf, workOf } from './tensor-work.ts';
import { type ByteRange, outputRange, type Piece, piecesOf } from './windows.ts';

/** A read of neighbouring bytes of one file into neighbouring bytes of the output area. */
interface Read {
  readonly from: TensorReference;
  readonly offset: number;
  /** Where in the output area. */
  readonly at: number;
  length: number;
}

/** Makes windows of a shard in the memory of a kernel. */
export class WindowMaker {
  readonly #shard: PlannedShard;
  /** The first bytes of the shard: length and JSON of its header. */
  readonly #header: Uint8Array;
  readonly #kernel: MergeKernel;
  readonly #files: InputFiles;
  readonly #factors: FactorPacker;
  readonly #sources: SourceReader;
  /** Where windows begin in the kernel's output area. */
  readonly #windowOffset: number;
  readonly #isInPlace: boolean;
  readonly #bands: BandMaker | undefined;
  /** The deltas whose right factors are packed: a tensor, and the first of its rows that has them. */
  #packed = '';

  constructor(
    shard: PlannedShard,
    header: Uint8Array,
    kernel: MergeKernel,
    windowOffset: number,
    files: InputFiles,
    bands: BandMaker | undefined,
  ) {
    this.#bands = bands;
    this.#shard = shard;
    this.#header = header;
    this.#kernel = kernel;
    this.#windowOffset = windowOffset;
    this.#files = files;
    this.#factors = new FactorPacker(kernel, files);
    this.#sources = new SourceReader(kernel, files);
    this.#isInPlace = kernel.input.byteOffset === kernel.output.byteOffset;
  }

  /**
   * @returns the bytes of the window, in the kernel's memory, until the next call
   * @throws WeldlineError `merge.non-finite`, and what reading throws
   */
  make(window: ByteRange): Uint8Array {
    const { output } = this.#kernel;
    const pieces = piecesOf(this.#shard, window);
    if (window.begin < this.#header.length) {
      output.set(this.#header.subarray(window.begin, window.end), this.#windowOffset);
    }
    this.#readAll(pieces, window);
    for (const piece of pieces) this.#compute(piece, window);
    const made = output.subarray(
      this.#windowOffset,
      this.#windowOffset + window.end - window.begin,
    );
    for (const piece of pieces) {
      const tensor = this.#shard.tensors[piece.tensor] as PlannedTensor;
      const bad = replaceRows(tensor, window, made, this.#files);
      if (bad !== undefined) throw nonFiniteError(tensor, `row ${bad.row}`, bad.nonFinite);
    }
    return made;
  }

  /** Where the first byte of a piece lies in the output area; before the window for a shared row. */
  #placeOf(piece: Piece, window: ByteRange): number {
    return this.#windowOffset + outputRange(this.#shard, piece).begin - window.begin;
  }

  /** Reads all that is not read elsewhere first: most often one call for a whole window. */
  #readAll(pieces: readonly Piece[], window: ByteRange): void {
    let pending: Read | undefined;
    const flush = (): void => {
      if (pending === undefined) return;
      const { from, offset, at, length } = pending;
      this.#files.read(from, offset, this.#kernel.output.subarray(at, at + length));
    };
    for (const piece of pieces) {
      const tensor = this.#shard.tensors[piece.tensor] as PlannedTensor;
      if (!this.#isReadAtOnce(tensor)) continue;
      const { inputBytes } = unitsOf(tensor);
      const read = {
        from: tensor.from,
        offset: piece.begin * inputBytes,
        at: this.#placeOf(piece, window),
        length: (piece.end - piece.begin) * inputBytes,
      };
      if (pending !== undefined && isContinued(pending, read)) pending.length += read.length;
      else {
        flush();
        pending = read;
      }
    }
    flush();
  }

  /** Whether the bytes of the source are read to where the output's will be. */
  #isReadAtOnce(tensor: PlannedTensor): boolean {
    const work = workOf(tensor);
    if (work === 'copy') return true;
    return this.#isInPlace && work !== 'band' && tensor.from.quantization === undefined;
  }

  #compute(piece: Piece, window: ByteRange): void {
    const tensor = this.#shard.tensors[piece.tensor] as PlannedTensor;
    const work = workOf(tensor);
    if (work === 'copy') return;
    const count = piece.end - piece.begin;
    const place = this.#placeOf(piece, window);
    const inputOffset = this.#isInPlace ? place : 0;
    if (work !== 'band' && !this.#isReadAtOnce(tensor)) {
      this.#sources.read(tensor, piece.begin, count, inputOffset);
    }
    const options = { ...kernelDtypes(tensor), inputOffset, outputOffset: place };
    let nonFinite: number;
    if (work === 'band') nonFinite = this.#makeBands(tensor, piece, place);
    else if (work === 'delta') nonFinite = this.#merge(tensor, piece, options);
    else nonFinite = this.#kernel.cast({ count, ...options });
    if (nonFinite > 0) {
      const where = `${unitsOf(tensor).kind} ${piece.begin} to ${piece.end - 1}`;
      throw nonFiniteError(tensor, where, nonFinite);
    }
  }

  #merge(
    tensor: PlannedTensor,
    piece: Piece,
    options: Omit<Parameters<MergeKernel['merge']>[0], 'segments'>,
  ): number {
    const { inputBytes, outputBytes } = unitsOf(tensor);
    let nonFinite = 0;
    for (const block of rowBlocks(tensor, piece.begin, piece.end)) {
      const before = block.begin - piece.begin;
      nonFinite += this.#mergeBlock(tensor, piece.tensor, block, {
        ...options,
        inputOffset: (options.inputOffset ?? 0) + before * inputBytes,
        outputOffset: (options.outputOffset ?? 0) + before * outputBytes,
      });
    }
    return nonFinite;
  }

  #mergeBlock(
    tensor: PlannedTensor,
    index: number,
    { begin, end, deltas }: RowBlock,
    options: Omit<Parameters<MergeKernel['merge']>[0], 'segments'>,
  ): number {
    const { columns } = matrixOf(tensor);
    const rows = end - begin;
    if (deltas.length === 0) return this.#kernel.cast({ count: rows * columns, ...options });
    const key = packedKey(index, deltas);
    if (this.#packed !== key) {
      this.#factors.packRight(deltas, columns);
      this.#packed = key;
    }
    this.#factors.packLeft(deltas, begin, rows);
    return this.#kernel.merge({ segments: segmentsOf(deltas), ...options });
  }

  #makeBands(tensor: PlannedTensor, { begin, end }: Piece, place: number): number {
    assert(this.#bands !== undefined, `nothing is there to make ${tensor.name}`);
    const bytes = (end - begin) * unitsOf(tensor).outputBytes;
    return this.#bands.make(tensor, begin, end, this.#kernel.output.subarray(place, place + bytes));
  }
}

/** Deltas that begin with the same row of the same tensor are the same. */
function packedKey(tensor: number, deltas: readonly PlannedDelta[]): string {
  return `${tensor}:${deltas.map(({ rows }) => rows?.begin ?? 'all').join()}`;
}

function isContinued(a: Read, b: Read): boolean {
  return (
    a.from.input === b.from.input &&
    a.from.file === b.from.file &&
    a.from.offset + a.offset + a.length === b.from.offset + b.offset &&
    a.at + a.length === b.at
  );
}

function nonFiniteError(tensor: PlannedTensor, where: string, count: number): WeldlineError {
  const hint =
    tensor.dtype === 'F16'
      ? ' float16 ends at 65504: merge with dtype bfloat16 or float32.'
      : ' The base or the adapter holds them already; check both.';
  return new WeldlineError(
    'merge.non-finite',
    `"${tensor.name}" would have ${count} values that are infinite or not a number ` +
      `(${where}).${hint}`,
  );
}
