import { loadElement, type MergeKernel, storeElement } from '../../kernels/index.ts';
import { assert } from '../errors.ts';
import type {
  BlockQuantization,
  PlannedTensor,
  RowQuantization,
  TensorReference,
  TensorSource,
} from '../plan/plan.ts';
import { CODE_TABLES, INT8_FACTOR } from '../quantization/code-tables.ts';
import { bytesOf, KERNEL_DTYPE } from '../safetensors/dtype.ts';
import type { InputFiles } from './input-files.ts';

/** Elements that are dequantised at a time; bounds the memory, and must be even. */
const CHUNK_ELEMENTS = 256 * 1024;

/** What a `Dequantizer` keeps: packed weights, and of each of the smallest blocks two maxima. */
export const DEQUANTIZER_BYTES = CHUNK_ELEMENTS + (CHUNK_ELEMENTS / 32) * 8;

const { fround } = Math;

/**
 * Brings quantised weights into a kernel as the values that bitsandbytes dequantises them to: each
 * product in float32, rounded once to the dtype of the quantisation.
 */
export class Dequantizer {
  readonly #kernel: MergeKernel;
  readonly #files: InputFiles;
  readonly #packed = new Uint8Array(CHUNK_ELEMENTS);
  /** The stored bits of the values that the codes of one block have. */
  readonly #values16 = new Uint16Array(16);
  readonly #values32 = new Uint32Array(16);

  constructor(kernel: MergeKernel, files: InputFiles) {
    this.#kernel = kernel;
    this.#files = files;
  }

  /**
   * Fills the kernel's input area.
   * @param begin first of `count` elements of the flattened weight
   * @param offset where they go, in bytes; a multiple of the element's size
   */
  dequantize({ from, shape }: PlannedTensor, begin: number, count: number, offset: number): void {
    const { quantization } = from;
    assert(quantization !== undefined, 'a weight that is not quantised cannot be dequantised');
    const size = bytesOf(quantization.dtype);
    const { buffer, byteOffset } = this.#kernel.input;
    for (let done = 0; done < count; done += CHUNK_ELEMENTS) {
      const elements = Math.min(CHUNK_ELEMENTS, count - done);
      const at = byteOffset + offset + done * size;
      if (quantization.scheme === 'int8') {
        const into = new Float32Array(buffer, at, elements);
        this.#dequantizeRows(from, quantization, begin + done, shape[1] ?? 1, into);
      } else {
        const into =
          size === 4
            ? new Uint32Array(buffer, at, elements)
            : new Uint16Array(buffer, at, elements);
        this.#dequantizeBlocks(from, quantization, begin + done, into);
      }
    }
  }

  #dequantizeRows(
    from: TensorSource,
    { scales }: RowQuantization,
    begin: number,
    columns: number,
    into: Float32Array,
  ): void {
    const packed = this.#packed.subarray(0, into.length);
    this.#files.read(from, begin, packed);
    const integers = new Int8Array(packed.buffer, packed.byteOffset, packed.length);
    const firstRow = Math.floor(begin / columns);
    const rows = Math.floor((begin + into.length - 1) / columns) - firstRow + 1;
    const maxima = this.#floats(scales, firstRow, rows);
    let index = 0;
    for (let row = 0; row < rows; row++) {
      const end = Math.min(into.length, (firstRow + row + 1) * columns - begin);
      const scale = maxima[row]!;
      for (; index < end; index++) {
        into[index] = fround(fround(integers[index]! * scale) * INT8_FACTOR);
      }
    }
  }

  #dequantizeBlocks(
    from: TensorSource,
    quantization: BlockQuantization,
    begin: number,
    into: Uint16Array | Uint32Array,
  ): void {
    const { blockSize, scheme } = quantization;
    const values = into instanceof Uint16Array ? this.#values16 : this.#values32;
    const view = new DataView(values.buffer);
    const dtype = KERNEL_DTYPE[quantization.dtype];
    // Two codes to a byte: the first one may be the second of its byte.
    const skipped = begin % 2;
    const packed = this.#packed.subarray(0, Math.ceil((skipped + into.length) / 2));
    this.#files.read(from, Math.floor(begin / 2), packed);
    const firstBlock = Math.floor(begin / blockSize);
    const blocks = Math.floor((begin + into.length - 1) / blockSize) - firstBlock + 1;
    const maxima = this.#maxima(quantization, firstBlock, blocks);
    const codes = CODE_TABLES[scheme];
    let index = 0;
    for (let block = 0; block < blocks; block++) {
      const end = Math.min(into.length, (firstBlock + block + 1) * blockSize - begin);
      for (let code = 0; code < 16; code++) {
        const value = fround(codes[code]! * maxima[block]!);
        storeElement(view, code * values.BYTES_PER_ELEMENT, dtype, value);
      }
      for (; index < end; index++) {
        const pair = packed[(skipped + index) >>> 1]!;
        into[index] = values[(skipped + index) % 2 === 0 ? pair >>> 4 : pair & 15]!;
      }
    }
  }

  /** The absolute maxima of some blocks. */
  #maxima({ absmax, nested }: BlockQuantization, begin: number, count: number): Float32Array {
    if (nested === undefined) return this.#floats(absmax, begin, count);
    const codes = new Uint8Array(count);
    this.#files.read(absmax, begin, codes);
    const firstOuter = Math.floor(begin / nested.blockSize);
    const outer = Math.floor((begin + count - 1) / nested.blockSize) - firstOuter + 1;
    const outerMaxima = this.#floats(nested.absmax, firstOuter, outer);
    const map = this.#floats(nested.map, 0, 256);
    const offset = fround(nested.offset);
    return Float32Array.from(codes, (code, index) => {
      const maximum = outerMaxima[Math.floor((begin + index) / nested.blockSize) - firstOuter]!;
      return fround(map[code]! * maximum) + offset;
    });
  }

  #floats(tensor: TensorReference, begin: number, count: number): Float32Array {
    const bytes = new Uint8Array(4 * count);
    this.#files.read(tensor, 4 * begin, bytes);
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: count }, (_, index) => loadElement(view, 4 * index, 'f32'));
  }
}
