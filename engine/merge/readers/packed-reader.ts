import { decodeElements, storeElement } from '../../../kernels/index.ts';
import { assert } from '../../errors.ts';
import type { PackedQuantization, PlannedTensor } from '../../plan/plan.ts';
import { AWQ_PLACES } from '../../quantization/packed-integers.ts';
import { bytesOf, isMergeDtype, KERNEL_DTYPE } from '../../safetensors/dtype.ts';
import type { InputFiles } from '../input-files.ts';
import { readBand } from './read-band.ts';

/**
 * Packed words of a band of rows. The files hold weights the other way round, so that a band is a
 * short piece of every row there: the larger it is, the fewer reads.
 */
const PACKED_BYTES = 1024 * 1024;

const WORD_BYTES = 4;
const WORD_BITS = 32;

const { fround } = Math;

/** The stored bits of values of one dtype. */
export type Bits = Uint16Array | Uint32Array;

/** Rows of a weight with all that their values are made from. */
interface RowBand {
  readonly first: number;
  readonly rows: number;
  /** GPTQ: [in / n, rows]; AWQ: [in, words]. */
  readonly packed: Uint32Array;
  /** [groups, words] */
  readonly zeros: Uint32Array;
  /** [groups, rows] */
  readonly scales: Float64Array;
  /** The first of the words of the output dimension, and how many there are. */
  readonly firstWord: number;
  readonly words: number;
}

/**
 * Reads weights that GPTQ or AWQ packed, as [out, in]: `scale · (code - zero)`, rounded once, as
 * AutoGPTQ's `QuantLinear` and AutoAWQ's `dequantize_gemm` work it out.
 */
export class PackedReader {
  readonly #files: InputFiles;
  #buffer = new Uint8Array(0);
  #taken: PackedQuantization | undefined;
  /** Of the tensor at hand: where the values of each input's group begin in a row's table. */
  #places = new Uint32Array(0);
  #groups = 0;

  constructor(files: InputFiles) {
    this.#files = files;
  }

  /** @param begin the element of the flattened weight that comes first */
  fill(tensor: PlannedTensor, quantization: PackedQuantization, begin: number, into: Bits): void {
    const [, columns] = tensor.shape;
    assert(columns !== undefined, `${tensor.name} is no matrix`);
    if (this.#taken !== quantization) this.#take(quantization, columns);
    const step = Math.max(8, Math.floor((PACKED_BYTES * 8) / (columns * quantization.bits)));
    const end = begin + into.length;
    for (let row = Math.floor(begin / columns); row * columns < end; row += step) {
      const last = Math.min(row + step, Math.ceil(end / columns));
      const band = this.#readBand(tensor, quantization, row, last - row);
      for (let at = row; at < last; at++) {
        const values = this.#valuesOf(quantization, band, at);
        const from = Math.max(begin, at * columns);
        const to = Math.min(end, (at + 1) * columns);
        const part = into.subarray(from - begin, to - begin);
        this.#look(quantization, band, at, from - at * columns, values, part);
      }
    }
  }

  #take(quantization: PackedQuantization, columns: number): void {
    const { bits, groups, groupSize, scales } = quantization;
    this.#taken = quantization;
    this.#groups = scales.shape[0] ?? 0;
    this.#places = new Uint32Array(columns);
    if (groups === undefined) {
      for (let i = 0; i < columns; i++) this.#places[i] = Math.floor(i / groupSize) << bits;
      return;
    }
    this.#files.read(groups, 0, new Uint8Array(this.#places.buffer));
    for (let i = 0; i < columns; i++) this.#places[i]! <<= bits;
  }

  #readBand(
    { from, shape }: PlannedTensor,
    { bits, scheme, zeros, scales }: PackedQuantization,
    first: number,
    rows: number,
  ): RowBand {
    const [outputs = 0, inputs = 0] = shape;
    const perWord = WORD_BITS / bits;
    const firstWord = Math.floor(first / perWord);
    const words = Math.ceil((first + rows) / perWord) - firstWord;
    const wordRow = (outputs / perWord) * WORD_BYTES;
    const ofWords = { offset: firstWord * WORD_BYTES, stride: wordRow, bytes: words * WORD_BYTES };
    const band =
      scheme === 'awq'
        ? { ...ofWords, rows: inputs }
        : {
            offset: first * WORD_BYTES,
            rows: inputs / perWord,
            stride: outputs * WORD_BYTES,
            bytes: rows * WORD_BYTES,
          };
    const bytes = band.rows * band.bytes;
    if (this.#buffer.length < bytes) this.#buffer = new Uint8Array(bytes);
    readBand(this.#files, from, band, this.#buffer);
    const zeroBytes = new Uint8Array(this.#groups * ofWords.bytes);
    readBand(this.#files, zeros, { ...ofWords, rows: this.#groups }, zeroBytes);
    assert(isMergeDtype(scales.dtype), `scales are ${scales.dtype}`);
    const size = bytesOf(scales.dtype);
    const scaleBytes = new Uint8Array(this.#groups * rows * size);
    const ofScales = { offset: first * size, stride: outputs * size, bytes: rows * size };
    readBand(this.#files, scales, { ...ofScales, rows: this.#groups }, scaleBytes);
    return {
      ...{ first, rows, firstWord, words },
      packed: new Uint32Array(this.#buffer.buffer, 0, bytes / WORD_BYTES),
      zeros: new Uint32Array(zeroBytes.buffer),
      scales: decodeElements(scaleBytes, KERNEL_DTYPE[scales.dtype]),
    };
  }

  /** What each code stands for in each group of a row. */
  #valuesOf({ bits, dtype, scheme, zeroOffset }: PackedQuantization, band: RowBand, row: number) {
    const codes = 2 ** bits;
    const size = bytesOf(dtype);
    const table =
      size === 4 ? new Uint32Array(this.#groups * codes) : new Uint16Array(this.#groups * codes);
    const view = new DataView(table.buffer);
    const { word, shift } = placeOf(scheme, bits, row, band);
    for (let group = 0; group < this.#groups; group++) {
      const zero = ((band.zeros[group * band.words + word]! >>> shift) & (codes - 1)) + zeroOffset;
      const scale = band.scales[group * band.rows + row - band.first]!;
      for (let code = 0; code < codes; code++) {
        const value = fround(scale * (code - zero));
        storeElement(view, (group * codes + code) * size, KERNEL_DTYPE[dtype], value);
      }
    }
    return table;
  }

  /** Looks the values of a piece of a row up, from a column on. */
  #look(
    { bits, scheme }: PackedQuantization,
    band: RowBand,
    row: number,
    column: number,
    values: Bits,
    into: Bits,
  ): void {
    const { packed, rows, words, first } = band;
    const places = this.#places;
    const mask = 2 ** bits - 1;
    if (scheme === 'awq') {
      const { word, shift } = placeOf(scheme, bits, row, band);
      for (let i = 0; i < into.length; i++) {
        const code = (packed[(column + i) * words + word]! >>> shift) & mask;
        into[i] = values[places[column + i]! + code]!;
      }
      return;
    }
    const wordShift = bits === 4 ? 3 : 2;
    const inWord = 2 ** wordShift - 1;
    const at = row - first;
    for (let i = 0; i < into.length; i++) {
      const input = column + i;
      const word = packed[(input >>> wordShift) * rows + at]!;
      into[i] = values[places[input]! + ((word >>> ((input & inWord) * bits)) & mask)]!;
    }
  }
}

/** The word of a row among those of its band that are packed along the output, and its place there. */
function placeOf(
  scheme: PackedQuantization['scheme'],
  bits: number,
  row: number,
  { firstWord }: Pick<RowBand, 'firstWord'>,
): { readonly word: number; readonly shift: number } {
  const perWord = WORD_BITS / bits;
  const place = row % perWord;
  const shift = bits * (scheme === 'awq' ? AWQ_PLACES[place]! : place);
  return { word: Math.floor(row / perWord) - firstWord, shift };
}
