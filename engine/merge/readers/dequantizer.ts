import { loadElement, type MergeKernel, storeElement } from '../../../kernels/index.ts';
import { assert } from '../../errors.ts';
import type {
  BlockQuantization,
  PlannedTensor,
  RowQuantization,
  TensorReference,
  TensorSource,
} from '../../plan/plan.ts';
import { CODE_TABLES, INT8_FACTOR } from '../../quantization/code-tables.ts';
import { bytesOf, KERNEL_DTYPE, type MergeDtype } from '../../safetensors/dtype.ts';
import type { InputFiles } from '../input-files.ts';
import { Fp8Reader } from './fp8-reader.ts';
import { Mxfp4Reader } from './mxfp4-reader.ts';
import { PackedReader } from './packed-reader.ts';
import { SimulatedReader } from './simulated-reader.ts';

/** Elements that are dequantised at a time; bounds the memory, and must be even. */
const CHUNK_ELEMENTS = 256 * 1024;

/**
 * What a `Dequantizer` keeps at most: packed weights of 1 MiB and their scales, or of bitsandbytes'
 * smallest blocks two maxima each.
 */
export const DEQUANTIZER_BYTES = 2 * 1024 * 1024;

const { fround } = Math;

/**
 * Brings quantised weights into a kernel as the values that they dequantise to: each product
 * in float32, rounded once to the dtype of the quantisation.
 */
export class Dequantizer {
  readonly #kernel: MergeKernel;
  readonly #files: InputFiles;
  readonly #packed = new Uint8Array(CHUNK_ELEMENTS);
  /** The stored bits of the values that the codes of one block have. */
  readonly #values16 = new Uint16Array(16);
  readonly #values32 = new Uint32Array(16);
  /** Each has buffers of its own once it was used. */
  readonly #readers: {
    readonly packed: PackedReader;
    readonly fp8: Fp8Reader;
    readonly mxfp4: Mxfp4Reader;
    readonly simulated: SimulatedReader;
  };

  constructor(kernel: MergeKernel, files: InputFiles) {
    this.#kernel = kernel;
    this.#files = files;
    this.#readers = {
      packed: new PackedReader(files),
      fp8: new Fp8Reader(files),
      mxfp4: new Mxfp4Reader(files),
      simulated: new SimulatedReader(files),
    };
  }

  /**
   * Fills the kernel's input area.
   * @param begin first of `count` elements of the flattened weight
   * @param offset where they go, in bytes; a multiple of the element's size
   */
  dequantize(tensor: PlannedTensor, begin: number, count: number, offset: number): void {
    const { quantization } = tensor.from;
    assert(quantization !== undefined, 'a weight that is not quantised cannot be dequantised');
    const into = this.#room(quantization.dtype, offset, count);
    const { packed, fp8, mxfp4, simulated } = this.#readers;
    switch (quantization.scheme) {
      case 'gptq':
      case 'awq':
        packed.fill(tensor, quantization, begin, into);
        break;
      case 'fp8':
        fp8.fill(tensor, quantization, begin, into);
        break;
      case 'mxfp4':
        mxfp4.fill(tensor, quantization, begin, into);
        break;
      case 'simulated_nf4':
        simulated.fill(tensor, quantization, begin, into);
        break;
      default:
        this.#dequantizeChunks(tensor, quantization, begin, into);
    }
  }

  #dequantizeChunks(
    { from, shape }: PlannedTensor,
    quantization: BlockQuantization | RowQuantization,
    begin: number,
    into: Uint16Array | Uint32Array,
  ): void {
    for (let done = 0; done < into.length; done += CHUNK_ELEMENTS) {
      const part = into.subarray(done, done + CHUNK_ELEMENTS);
      if (quantization.scheme === 'int8') {
        const floats = new Float32Array(part.buffer, part.byteOffset, part.length);
        this.#dequantizeRows(from, quantization, begin + done, shape[1] ?? 1, floats);
      } else {
        this.#dequantizeBlocks(from, quantization, begin + done, part);
      }
    }
  }

  #room(dtype: MergeDtype, offset: number, count: number): Uint16Array | Uint32Array {
    const { buffer, byteOffset } = this.#kernel.input;
    const at = byteOffset + offset;
    return bytesOf(dtype) === 4
      ? new Uint32Array(buffer, at, count)
      : new Uint16Array(buffer, at, count);
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
